//! A plugin: a compiled component that fulfils the contract. Its instances turn batches of records into rows.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use silverd_core::config::Limits;
use silverd_core::input::{ContractVersion, DECODER_VERSION, Input};
use silverd_core::schema::{TRANSFORM, TableSchema};
use wasmtime::component::{ComponentExportIndex, InstancePre, TypedFunc};
use wasmtime::{Store, Trap};

use super::batch::{Batch, Batch01};
use super::binary::{Declared, encode};
use super::config::{Config, Passed};
use super::deployments::version_with;
use super::digest::Digest;
use super::engine::{deadline, to_anyhow};
use super::events::{Events, Rooms, TypedEvents};
use super::fault::{Fault, fault_of};
use super::guest_state::GuestState;
use super::host::Host;
use super::logs::Logs;
use super::native::{MakeNative, Native};
use super::output::Output;
use crate::delta::PluginVersion;

/// The interface, in both versions of the contract, and the function that give a plugin its settings.
const PLUGIN: [&str; 2] = ["silverd:pipeline/plugin@0.2.0", "silverd:pipeline/plugin@0.1.0"];
const CONFIGURE: &str = "configure";

/// The decoder of commits with typed input that name none: they are from before it was counted.
const UNNAMED_DECODER: u32 = 1;

/// A component that fulfils the contract, ready to be instantiated.
pub struct Plugin {
    pub digest: Digest,
    /// The digest of the settings and reference files that it gets.
    pub(crate) config_digest: Digest,
    pub schema: TableSchema,
    pub(crate) input: Input,
    rooms: Rooms,
    host: Arc<Host>,
    pre: InstancePre<GuestState>,
    transform: ComponentExportIndex,
    configure: Option<ComponentExportIndex>,
    config: Config,
    limits: Limits,
    logs: Arc<Logs>,
    native: Option<MakeNative>,
}

impl Plugin {
    /// Loads the plugin of a table from a file. See [`Plugin::compile`].
    pub fn load(host: Arc<Host>, table: &str, file: &Path, config: Config, limits: Limits) -> anyhow::Result<Self> {
        let bytes = std::fs::read(file).with_context(|| format!("read plugin {}", file.display()))?;
        let plugin = Self::compile(host, table, &bytes, config, limits);
        plugin.with_context(|| format!("load plugin {}", file.display()))
    }

    /// Keeps the version in the folder of `[state]`, because rows may be made with it. `bytes` is its file.
    pub(super) fn keep(&self, bytes: &[u8]) {
        self.host.keep(&self.digest, bytes, &self.config);
    }

    /// Compiles and checks the plugin of a table, and instantiates it once with its configuration.
    pub fn compile(host: Arc<Host>, table: &str, bytes: &[u8], config: Config, limits: Limits) -> anyhow::Result<Self> {
        let (digest, config_digest) = (Digest::of(bytes), config.digest());
        let encoded = encode(bytes)?;
        let binary = encoded.as_deref().unwrap_or(bytes);
        let Declared { schema, input, rooms } = Declared::of(binary, config.wit.as_deref())?;
        let component = host.compiler.component(binary).context("compile it")?;
        let export = |interface: &str, function: &str| {
            let interface = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&interface), function)
        };
        let transform = export(&schema.interface, TRANSFORM)
            .ok_or_else(|| anyhow!("it does not export `{}` of `{}`", TRANSFORM, schema.interface))?;
        let configure = PLUGIN.iter().find_map(|interface| export(interface, CONFIGURE));
        let has_config = !config.settings.is_empty() || !config.reference.is_empty();
        if configure.is_none() && has_config {
            bail!(
                "pipeline.toml gives it settings or reference data, and it does not export `{}`, which takes them",
                PLUGIN[0]
            );
        }
        let pre = host
            .linker
            .instantiate_pre(&component)
            .map_err(to_anyhow)
            .context("link it: a plugin may import WASI 0.2 and wasi:logging 0.1.0-draft, and nothing else")?;
        let logs = Logs::new(table, &schema.interface, &digest, limits.log_lines_per_second);
        let native = None;
        let plugin = Self {
            digest,
            config_digest,
            schema,
            input,
            rooms,
            host,
            pre,
            transform,
            configure,
            config,
            limits,
            logs,
            native,
        };
        plugin.instantiate()?;
        Ok(plugin)
    }

    /// The same plugin, with a function of this program instead of its WebAssembly.
    pub fn with_native(self, native: MakeNative) -> Self {
        Self { native: Some(native), ..self }
    }

    /// Creates an instance in its own store, and configures it.
    pub fn instantiate(&self) -> anyhow::Result<Instance> {
        if let Some(native) = self.native {
            return Ok(Instance(Backend::Native(native(&self.config)?)));
        }
        let mut store = Store::new(&self.host.engine, GuestState::new(&self.limits, self.logs.clone()));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.limits.output_bytes_max);
        let ms = self.limits.transform_ms_max;
        store.set_epoch_deadline(deadline(ms));
        let instance = self
            .pre
            .instantiate(&mut store)
            .map_err(|error| match error.is::<Trap>() || store.data().memory.refused.is_some() {
                true => anyhow!(fault_of(&mut store, &self.limits, ms, error).reason),
                false => to_anyhow(error),
            })
            .context("instantiate it")?;
        if let Some(configure) = &self.configure {
            let configure = instance
                .get_typed_func::<(Passed<'_>,), (Result<(), String>,)>(&mut store, configure)
                .map_err(to_anyhow)
                .context("its `configure` has another signature than the contract (see wit/types.wit)")?;
            let (answer,) = configure
                .call(&mut store, (self.config.passed(),))
                .map_err(|error| anyhow!(fault_of(&mut store, &self.limits, ms, error).reason))
                .context("call its `configure`")?;
            store.data_mut().output.call_succeeded();
            answer.map_err(|reason| anyhow!("it refuses its configuration: {reason}"))?;
        }
        let transform = Transform::of(&self.input, &instance, &mut store, &self.transform)
            .map_err(to_anyhow)
            .context("its `transform` has another signature than the contract (see wit/types.wit)")?;
        Ok(Instance(Backend::Wasm { store, transform, rooms: self.rooms }))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether both are the same file with the same configuration.
    pub(crate) fn is_same_version(&self, other: &Plugin) -> bool {
        self.digest == other.digest && self.config_digest == other.config_digest
    }

    /// The digests of its file, and of its settings and reference files.
    pub(crate) fn version(&self) -> PluginVersion {
        version_with(self.digest.as_str(), &self.config_digest)
    }

    /// What a commit says about the version that made its rows.
    pub(crate) fn commit_info(&self) -> serde_json::Value {
        let mut info = json!({
            "interface": self.schema.interface,
            "digest": self.digest.as_str(),
            "given": self.config_digest.as_str(),
        });
        if let Some(decoder) = self.decoder() {
            info["decoder"] = json!(decoder);
        }
        info
    }

    /// The version of the decoder that reads its events; `None` if it reads them itself.
    fn decoder(&self) -> Option<u32> {
        matches!(self.input, Input::Typed(_)).then_some(DECODER_VERSION)
    }

    /// Whether its events are read as they were for a commit that names this version of the decoder.
    pub(crate) fn has_decoder(&self, of_commit: Option<u32>) -> bool {
        self.decoder().is_none_or(|decoder| decoder == of_commit.unwrap_or(UNNAMED_DECODER))
    }

    /// The log of its instances.
    pub(super) fn logs(&self) -> &Logs {
        &self.logs
    }
}

/// An instance of a plugin, for one thread. It cannot be used after its first fault.
pub struct Instance(Backend);

enum Backend {
    Wasm { store: Store<GuestState>, transform: Transform, rooms: Rooms },
    Native(Box<dyn Native>),
}

/// The guest's function, by what it takes.
enum Transform {
    Raw01(TypedFunc<(Batch01<'static>,), (Output,)>),
    Raw(TypedFunc<(Batch<'static>,), (Output,)>),
    Typed(TypedFunc<(TypedEvents<'static>,), (Output,)>),
}

impl Transform {
    fn of(
        input: &Input,
        instance: &wasmtime::component::Instance,
        store: &mut Store<GuestState>,
        export: &ComponentExportIndex,
    ) -> wasmtime::Result<Self> {
        Ok(match input {
            Input::Raw(ContractVersion::V0_1) => Self::Raw01(instance.get_typed_func(store, export)?),
            Input::Raw(ContractVersion::V0_2) => Self::Raw(instance.get_typed_func(store, export)?),
            Input::Typed(_) => Self::Typed(instance.get_typed_func(store, export)?),
        })
    }

    fn call(&self, store: &mut Store<GuestState>, rooms: Rooms, events: Events<'_>) -> wasmtime::Result<Output> {
        // SAFETY: the function was checked with the same types except for the lifetime, on which no check depends; the
        // borrow ends with the call.
        let (output,) = unsafe {
            match (self, events) {
                (Self::Raw01(function), Events::Raw { chunk, rows }) => {
                    let function = TypedFunc::<(Batch01<'_>,), (Output,)>::new_unchecked(*function.func());
                    function.call(store, (Batch01::new(chunk, rows),))?
                }
                (Self::Raw(function), Events::Raw { chunk, rows }) => {
                    let function = TypedFunc::<(Batch<'_>,), (Output,)>::new_unchecked(*function.func());
                    function.call(store, (Batch::new(chunk, rows),))?
                }
                (Self::Typed(function), Events::Typed { records, ty, image }) => {
                    let function = TypedFunc::<(TypedEvents<'_>,), (Output,)>::new_unchecked(*function.func());
                    function.call(store, (TypedEvents::new(records, ty, rooms, image),))?
                }
                _ => wasmtime::bail!("the events are not of the form that the plugin takes"),
            }
        };
        Ok(output)
    }
}

impl Instance {
    /// The memory of the guest, which never shrinks.
    pub(super) fn memory_bytes(&self) -> usize {
        match &self.0 {
            Backend::Wasm { store, .. } => store.data().memory.used,
            Backend::Native(_) => 0,
        }
    }

    /// Passes events to the plugin, and returns its unchecked answer. The plugin may take `ms` milliseconds.
    pub fn transform(&mut self, limits: &Limits, ms: u64, mut events: Events<'_>) -> Result<Output, Fault> {
        let (store, transform, rooms) = match &mut self.0 {
            Backend::Wasm { store, transform, rooms } => (store, transform, *rooms),
            Backend::Native(native) => return Ok(native.transform(&mut events)),
        };
        store.set_epoch_deadline(deadline(ms));
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.data_mut().memory.refused = None;
        store.data_mut().output.call_started();
        match transform.call(store, rooms, events) {
            Ok(output) => {
                store.data_mut().output.call_succeeded();
                Ok(output)
            }
            Err(error) => Err(fault_of(store, limits, ms, error)),
        }
    }
}
