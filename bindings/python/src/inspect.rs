//! A look at a data directory that changes nothing.

use crate::{errors::Result, stats::list};
use flowmesh::{CheckpointReport, Cut, Damage, SegmentReport};
use pyo3::{prelude::*, types::PyDict};
use std::path::PathBuf;

/// Verifies what a data directory holds without opening it for writing; its host may hold it.
#[pyfunction]
pub(crate) fn inspect(py: Python<'_>, directory: PathBuf) -> Result<Bound<'_, PyDict>> {
    let found = py.detach(|| flowmesh::inspect(directory))?;
    let dict = PyDict::new(py);
    dict.set_item("segments", list(py, &found.segments, segment)?)?;
    dict.set_item("checkpoints", list(py, &found.checkpoints, checkpoint)?)?;
    dict.set_item("batches", found.batches)?;
    dict.set_item("entries", found.entries)?;
    dict.set_item("range", found.range.map(|(first, last)| (first.0, last.0)))?;
    dict.set_item("tail", found.tail.as_ref().map(|tail| cut(py, tail)).transpose()?)?;
    dict.set_item("damages", list(py, &found.damages, damage)?)?;
    Ok(dict)
}

fn segment<'py>(py: Python<'py>, report: &SegmentReport) -> PyResult<Bound<'py, PyDict>> {
    let SegmentReport { file, bytes, end, batches, batch_count } = report;
    let dict = PyDict::new(py);
    dict.set_item("file", file)?;
    dict.set_item("bytes", bytes)?;
    dict.set_item("end", end)?;
    dict.set_item("batches", batches.map(|(first, last)| (first.0, last.0)))?;
    dict.set_item("batch_count", batch_count)?;
    Ok(dict)
}

fn checkpoint<'py>(py: Python<'py>, report: &CheckpointReport) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("file", &report.file)?;
    dict.set_item("begin", report.begin.0)?;
    dict.set_item("end", report.end.0)?;
    dict.set_item("images", report.images)?;
    dict.set_item("bytes", report.bytes)?;
    Ok(dict)
}

fn cut<'py>(py: Python<'py>, cut: &Cut) -> PyResult<Bound<'py, PyDict>> {
    let Cut { file, offset, bytes, batches } = cut;
    let dict = PyDict::new(py);
    dict.set_item("file", file)?;
    dict.set_item("offset", offset)?;
    dict.set_item("bytes", bytes)?;
    dict.set_item("batches", batches)?;
    Ok(dict)
}

fn damage<'py>(py: Python<'py>, damage: &Damage) -> PyResult<Bound<'py, PyDict>> {
    let Damage { file, offset, what } = damage;
    let dict = PyDict::new(py);
    dict.set_item("file", file)?;
    dict.set_item("offset", offset)?;
    dict.set_item("what", what)?;
    Ok(dict)
}
