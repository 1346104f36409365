//! The macro that makes a component of a plugin.

/// Makes a component of a type that implements [`Transform`](crate::Transform).
///
/// | key | value |
/// |---|---|
/// | `plugin` | the type, which stands in the same module |
/// | `types` | path of silverd's `types.wit`, from the folder of the plugin's `Cargo.toml` |
/// | `table` | path of the table's WIT file, from there too |
/// | `world` | the world in that file, with its package: `"shop:silver/page-view-plugin"` |
/// | `interface` | the interface in that file, and its types that the plugin fills: `shop::silver::page_view::{Row}` |
///
/// It brings these types into the module. They implement `Debug`, `Clone`, `PartialEq` and `serde::Serialize`, and are
/// the same natively and in WebAssembly.
///
/// On WebAssembly alone it also exports the component's functions, lets the daemon know why the plugin panics, and puts the text of the table's WIT file into the
/// custom section `silverd:wit`: comments do not survive in a component's types, and the daemon makes the columns'
/// comments of them. Natively nothing is exported, so that several plugins can be linked into one program.
#[macro_export]
macro_rules! export {
    (
        plugin: $plugin:ident,
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
                with: { "silverd:pipeline/types@0.1.0": ::silverd_plugin::wit::types },
                runtime_path: "::silverd_plugin::wit_bindgen::rt",
                additional_derives: [PartialEq, ::silverd_plugin::serde::Serialize],
            });

            use exports::$($interface)::+ as table;
            use exports::silverd::pipeline::plugin;
            use $crate::wit::types;

            ::std::thread_local! {
                // An instance has one thread and one plugin, from `configure` on.
                static PLUGIN: ::std::cell::OnceCell<super::$plugin> = const { ::std::cell::OnceCell::new() };
            }

            struct Component;

            impl plugin::Guest for Component {
                fn configure(config: types::Config) -> Result<(), String> {
                    $crate::log::tell_panics();
                    let plugin = <super::$plugin as $crate::Transform>::configure(&config.into())?;
                    PLUGIN.with(|cell| cell.set(plugin)).map_err(|_| "the plugin is configured already".to_owned())
                }
            }

            impl table::Guest for Component {
                fn transform(events: types::Batch) -> table::Output {
                    PLUGIN.with(|cell| {
                        let plugin = cell.get().expect("`configure` is called before `transform`");
                        let $crate::Verdicts { rows, row_events, rejects } = $crate::transform_batch(plugin, &events);
                        table::Output { rows, row_events, rejects }
                    })
                }
            }

            #[cfg(target_arch = "wasm32")]
            export!(Component with_types_in self);

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
