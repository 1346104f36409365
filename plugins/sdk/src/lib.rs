//! What a silverd plugin is written with: a trait, the types that it speaks, and a macro that makes a component of it.
//!
//! A plugin turns one raw event into the rows of one Silver table. The table is declared in WIT; the macro [`export!`]
//! makes Rust types of that file, and the plugin fills them:
//!
//! ```ignore
//! use silverd_plugin::{Config, Event, Reject, Text, Transform};
//!
//! silverd_plugin::export! {
//!     plugin: Signup,
//!     types: "../../wit/types.wit",
//!     table: "../../wit/silver/signup.wit",
//!     world: "shop:silver/signup-plugin",
//!     interface: shop::silver::signup::{Row},
//! }
//!
//! #[derive(Default, serde::Deserialize)]
//! #[serde(default)]
//! struct Input<'a> {
//!     #[serde(borrow)]
//!     user_id: Text<'a>,
//!     #[serde(borrow)]
//!     ts: Text<'a>,
//! }
//!
//! pub struct Signup;
//!
//! impl Transform for Signup {
//!     type Rows = Option<Row>;
//!
//!     fn configure(_: &Config) -> Result<Self, String> {
//!         Ok(Signup)
//!     }
//!
//!     fn transform(&self, event: &Event<'_>) -> Result<Option<Row>, Reject> {
//!         let input: Input<'_> = event.json()?;
//!         Ok(Some(Row { user_id: input.user_id.required("user_id")?.to_owned(), ts: input.ts.timestamp("ts")? }))
//!     }
//! }
//! ```
//!
//! `cargo build --release --target wasm32-unknown-unknown` gives the plugin. The same function runs natively, in tests:
//! see [`testing`]. What a plugin tells by [`log`] stands in the daemon's log, and a panic's text with the event that
//! it panicked on, in the quarantine.

pub mod log;
pub mod testing;
pub mod timestamp;

mod config;
mod event;
mod export;
mod money;
mod reject;
mod text;
mod transform;

pub use config::Config;
pub use event::Event;
pub use money::Money;
pub use reject::{Reject, RejectCode, quoted, required};
pub use text::Text;
pub use transform::{Transform, Verdicts, transform_batch};

/// For the code that [`export!`] expands to.
#[doc(hidden)]
pub use {serde, wit_bindgen};

/// The types of `wit/types.wit`, as wit-bindgen makes them. Plugins meet them only through the rest of this crate.
#[doc(hidden)]
#[allow(unused, clippy::all, clippy::unwrap_used, unused_qualifications)]
pub mod wit {
    wit_bindgen::generate!({
        path: "../../wit/types.wit",
        inline: "package silverd:sdk; world sdk { import silverd:pipeline/types@0.1.0; }",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq, serde::Serialize],
        disable_custom_section_link_helpers: true,
    });

    pub use silverd::pipeline::types;

    #[cfg(target_arch = "wasm32")]
    pub use imports::wasi::logging::logging;

    /// What every plugin imports. The table's world need not: the component's world is both together.
    #[cfg(target_arch = "wasm32")]
    mod imports {
        wit_bindgen::generate!({
            path: "../../wit/deps/logging.wit",
            inline: "package silverd:sdk; world logs { import wasi:logging/logging@0.1.0-draft; }",
            generate_all,
        });
    }
}
