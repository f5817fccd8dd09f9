//! The tables, one module each: which figures are held against what.

mod ipc;

use crate::table::Table;

pub(crate) const TABLES: &[Table] = &[ipc::TABLE];
