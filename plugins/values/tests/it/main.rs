//! Properties of the functions, and the examples of `docs/values.md`.

mod documentation;
mod format;
mod never_panics;
mod properties;
mod random;
