//! The tables, one module each: which figures are held against what.

mod ipc;
mod queues;

use crate::table::Table;

pub(crate) const TABLES: &[Table] = &[ipc::TABLE, queues::TABLE];
