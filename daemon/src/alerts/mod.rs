//! Alerts: conditions in SQL and built-in ones, their states over restarts, and what their receivers are notified of.
//!
//! ```text
//!   SQL process ── row ──▶ evaluate ─┐                                        ┌─▶ board: dashboard, API, metrics
//!   status, Gold, maintenance,       ├─▶ step (core) ─▶ store ─▶ outbox ─▶ store
//!   free bytes ─────────▶ built_in ──┘                            │
//!                                                                 └─▶ notify/: webhooks, commands, mail
//! ```
//!
//! Nothing here delays the pipeline: it reads counters, committed tables, and rows in memory.

mod board;
mod built_in;
mod disks;
mod engine;
mod evaluate;
mod evaluator;
mod notification;
mod observed;
mod service;
mod store;

pub(crate) use board::{AlertBoard, ShownAlert, ShownAlerts, sort};
pub(crate) use built_in::{BuiltIn, built_in_alerts};
pub(crate) use evaluate::{Evaluation, InvalidAlert, check_alert, evaluate, statement, summary, text_of};
pub(crate) use notification::test_notification;
pub(crate) use service::{AlertInputs, AlertService};
pub(crate) use store::{StoredAlert, StoredAlerts};
