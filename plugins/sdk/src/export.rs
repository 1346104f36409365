//! The macro that exports a plugin as a WebAssembly component.

/// Exports a type that implements [`Transform`](crate::Transform) as a WebAssembly component.
///
/// | key | value |
/// |---|---|
/// | `plugin` | the type; it is in the same module. `raw_plugin` for one that implements [`TransformRaw`](crate::TransformRaw) |
/// | `types` | path of silverd's `types.wit`, relative to the folder of the plugin's `Cargo.toml` |
/// | `table` | path of the table's WIT file, relative to the same folder |
/// | `world` | the world in that file, with its package: `"shop:silver/page-view-plugin"` |
/// | `interface` | the interface in that file, and the types to import from it: `shop::silver::page_view::{Input, Row}` |
///
/// The macro imports these types into the module. They implement `Debug`, `Clone` and `PartialEq`, and
/// are the same on the host and in WebAssembly.
///
/// On WebAssembly, the macro also exports the component's functions, reports panics to the daemon, and copies the table's
/// WIT file into the custom section `silverd:wit`. A component's types do not keep doc comments; the daemon reads the
/// column comments, and the names that fields have in JSON, from this section. On the host the macro exports nothing, so
/// one program can link several plugins.
///
/// A plugin with its table's WIT file, which is shown in the [crate documentation](crate):
///
/// ```standalone_crate
/// use silverd_plugin::{Config, Reject, Transform};
///
/// silverd_plugin::export! {
///     plugin: Signup,
///     types: "../../wit/types.wit",
///     table: "doc/signup.wit",
///     world: "shop:silver/signup-plugin",
///     interface: shop::silver::signup::{Input, Row},
/// }
///
/// pub struct Signup;
///
/// impl Transform for Signup {
///     type Input = Input;
///     type Rows = Option<Row>;
///
///     fn configure(_: &Config) -> Result<Self, String> {
///         Ok(Signup)
///     }
///
///     fn transform(&self, input: Input) -> Result<Option<Row>, Reject> {
///         let Input { event_id, ts, user_id, email } = input;
///         Ok(Some(Row { event_id, ts, user_id, email_domain: email }))
///     }
/// }
/// # fn main() {}
/// ```
///
/// Where a plugin needs to know where an event comes from, its function takes a record of both, and `event` is one of the
/// names of `interface`:
///
/// ```wit
/// use silverd:pipeline/types@0.2.0.{meta, reject, timestamp};
///
/// record event { input: input, meta: meta }
///
/// transform: func(events: list<event>) -> output;
/// ```
///
/// A plugin of raw records is exported with `raw_plugin: …`, and its function is `transform: func(events: batch) -> output`.
#[macro_export]
macro_rules! export {
    (plugin: $plugin:ident, $($rest:tt)*) => {
        $crate::export_as! {
            Transform, transform_events, [Vec<<super::$plugin as $crate::Transform>::Input>], [], $plugin, $($rest)*
        }
    };
    (raw_plugin: $plugin:ident, $($rest:tt)*) => {
        $crate::export_as! { TransformRaw, transform_batch, [types::Batch], [&], $plugin, $($rest)* }
    };
}

/// The form that both forms of [`export!`] have in common: the trait, the function that calls it for all events, what
/// this function takes, and how.
#[doc(hidden)]
#[macro_export]
macro_rules! export_as {
    (
        $trait:ident, $transform:ident, [$events:ty], [$($borrow:tt)?], $plugin:ident,
        types: $types:literal,
        table: $table:literal,
        world: $world:literal,
        interface: $($interface:ident)::+::{ $($name:ident),+ $(,)? } $(,)?
    ) => {
        #[doc(hidden)]
        #[allow(unused, unused_qualifications, clippy::all, clippy::unwrap_used)]
        mod bindings {
            $crate::wit_bindgen::generate!({
                path: [$types, $table],
                world: $world,
                with: { "silverd:pipeline/types@0.2.0": ::silverd_plugin::wit::types },
                runtime_path: "::silverd_plugin::wit_bindgen::rt",
                additional_derives: [PartialEq],
            });

            use exports::$($interface)::+ as table;
            use exports::silverd::pipeline::plugin;
            use $crate::wit::types;

            ::std::thread_local! {
                // A component instance has one thread and one plugin; `configure` sets it.
                static PLUGIN: ::std::cell::OnceCell<super::$plugin> = const { ::std::cell::OnceCell::new() };
            }

            struct Component;

            impl plugin::Guest for Component {
                fn configure(config: types::Config) -> Result<(), String> {
                    $crate::log::report_panics();
                    let plugin = <super::$plugin as $crate::$trait>::configure(&config.into())?;
                    PLUGIN.with(|cell| cell.set(plugin)).map_err(|_| "`configure` was called twice".to_owned())
                }
            }

            impl table::Guest for Component {
                fn transform(events: $events) -> table::Output {
                    PLUGIN.with(|cell| {
                        let plugin = cell.get().expect("`configure` is called before `transform`");
                        let $crate::TransformOutput { rows, row_events, rejects } =
                            $crate::$transform(plugin, $($borrow)? events);
                        table::Output { rows, row_events, rejects }
                    })
                }
            }

            #[cfg(target_arch = "wasm32")]
            export!(Component with_types_in self);

            #[cfg(target_arch = "wasm32")]
            #[global_allocator]
            static ALLOCATOR: $crate::Allocator = $crate::Allocator::new();

            // silverd writes a batch into one block if it finds this.
            #[cfg(target_arch = "wasm32")]
            #[used]
            #[unsafe(link_section = "silverd:one-block")]
            static ONE_BLOCK: [u8; 1] = [1];

            #[cfg(target_arch = "wasm32")]
            const WIT: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $table));

            #[cfg(target_arch = "wasm32")]
            #[used]
            #[unsafe(link_section = "silverd:wit")]
            static WIT_SECTION: [u8; WIT.len()] = *include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $table));
        }

        pub use bindings::exports::$($interface)::+::{ $($name),+ };
    };
}
