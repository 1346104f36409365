//! The contract's `output`: what a plugin returns for a batch.

use silverd_core::outcome::{Code, Reject};
use wasmtime::component::{ComponentType, Lift};

use super::lift::Rows;

/// The contract's `output`.
#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Output {
    pub rows: Rows,
    #[component(name = "row-events")]
    pub row_events: Vec<u32>,
    pub rejects: Vec<Rejected>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Rejected {
    pub event: u32,
    pub code: RejectCode,
    pub reason: String,
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum RejectCode {
    #[component(name = "malformed")]
    Malformed,
    #[component(name = "missing-field")]
    MissingField,
    #[component(name = "out-of-range")]
    OutOfRange,
    #[component(name = "other")]
    Other,
}

impl From<RejectCode> for Code {
    fn from(code: RejectCode) -> Self {
        match code {
            RejectCode::Malformed => Code::Malformed,
            RejectCode::MissingField => Code::MissingField,
            RejectCode::OutOfRange => Code::OutOfRange,
            RejectCode::Other => Code::Other,
        }
    }
}

impl From<Reject> for Rejected {
    fn from(reject: Reject) -> Self {
        let code = match reject.code {
            Code::Malformed => RejectCode::Malformed,
            Code::MissingField => RejectCode::MissingField,
            Code::OutOfRange => RejectCode::OutOfRange,
            _ => RejectCode::Other,
        };
        Rejected { event: reject.event, code, reason: reject.reason }
    }
}

impl From<Rejected> for Reject {
    fn from(rejected: Rejected) -> Self {
        Reject { event: rejected.event, code: rejected.code.into(), reason: rejected.reason }
    }
}
