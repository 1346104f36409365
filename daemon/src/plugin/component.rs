//! A plugin: a compiled component that fulfils the contract, or the SQL of a table. Its instances turn batches of records
//! into rows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::json;
use silverd_core::config::Limits;
use silverd_core::input::{ContractVersion, DECODER_VERSION, Input};
use silverd_core::outcome::Code;
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
use super::fault::{Fault, fault_of, sql_fault};
use super::guest_state::GuestState;
use super::host::Host;
use super::lift::Rows;
use super::logs::Logs;
use super::native::{MakeNative, Native};
use super::output::{Output, Rejected};
use crate::delta::PluginVersion;
use crate::row_sql::{Definition, RowSql, SqlInstance, SqlRows};

/// The interface, in both versions of the contract, and the function that give a plugin its settings.
const PLUGIN: [&str; 2] = ["silverd:pipeline/plugin@0.2.0", "silverd:pipeline/plugin@0.1.0"];
const CONFIGURE: &str = "configure";

/// The decoder of commits with typed input that name none: they are from before it was counted.
const UNNAMED_DECODER: u32 = 1;

/// A version of what makes a table's rows, ready to be instantiated.
pub struct Plugin {
    pub digest: Digest,
    /// The digest of the settings and reference files that it gets.
    pub(crate) config_digest: Digest,
    pub schema: TableSchema,
    pub(crate) input: Input,
    host: Arc<Host>,
    code: TransformCode,
    config: Config,
    limits: Limits,
    logs: Arc<Logs>,
}

/// What makes the rows.
enum TransformCode {
    /// A component that fulfils the contract.
    Component(Component),
    Sql(Arc<RowSql>),
    Native(MakeNative),
}

/// A compiled component.
struct Component {
    pre: InstancePre<GuestState>,
    transform: ComponentExportIndex,
    configure: Option<ComponentExportIndex>,
    rooms: Rooms,
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

    /// Compiles and checks the plugin of a table, or its SQL, and instantiates it once with its configuration.
    pub fn compile(host: Arc<Host>, table: &str, bytes: &[u8], config: Config, limits: Limits) -> anyhow::Result<Self> {
        let (schema, input, code) = match Definition::parse(bytes) {
            Some(definition) => {
                let sql = RowSql::plan(definition, config.references())?;
                (sql.schema.clone(), Input::Typed(sql.event.ty.clone()), TransformCode::Sql(Arc::new(sql)))
            }
            None => {
                let (schema, input, component) = Component::compile(&host, bytes, &config)?;
                (schema, input, TransformCode::Component(component))
            }
        };
        let (digest, config_digest) = (Digest::of(bytes), config.digest());
        let logs = Logs::new(table, &schema.interface, &digest, limits.log_lines_per_second);
        let plugin = Self { digest, config_digest, schema, input, host, code, config, limits, logs };
        plugin.instantiate()?;
        Ok(plugin)
    }

    /// The same plugin, with a function of this program instead of its WebAssembly.
    pub fn with_native(self, native: MakeNative) -> Self {
        Self { code: TransformCode::Native(native), ..self }
    }

    /// Creates an instance, and configures it.
    pub fn instantiate(&self) -> anyhow::Result<Instance> {
        Ok(Instance(match &self.code {
            TransformCode::Native(native) => Backend::Native(native(&self.config)?),
            TransformCode::Sql(sql) => {
                let references = self.config.references().map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
                let process = sql.start(references.collect(), self.limits.memory_bytes_max);
                Backend::Sql { process: process.context("start its SQL")?, sql: sql.clone() }
            }
            TransformCode::Component(component) => self.instantiate_component(component)?,
        }))
    }

    /// Creates an instance in its own store.
    fn instantiate_component(&self, component: &Component) -> anyhow::Result<Backend> {
        let mut store = Store::new(&self.host.engine, GuestState::new(&self.limits, self.logs.clone()));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.limits.output_bytes_max);
        let ms = self.limits.transform_ms_max;
        store.set_epoch_deadline(deadline(ms));
        let instance = component
            .pre
            .instantiate(&mut store)
            .map_err(|error| match error.is::<Trap>() || store.data().memory.refused.is_some() {
                true => anyhow!(fault_of(&mut store, &self.limits, ms, error).reason),
                false => to_anyhow(error),
            })
            .context("instantiate it")?;
        if let Some(configure) = &component.configure {
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
        let transform = Transform::of(&self.input, &instance, &mut store, &component.transform)
            .map_err(to_anyhow)
            .context("its `transform` has another signature than the contract (see wit/types.wit)")?;
        Ok(Backend::Component { store, transform, rooms: component.rooms })
    }

    /// The SQL that makes the rows, if it is no component.
    pub(crate) fn sql(&self) -> Option<&RowSql> {
        match &self.code {
            TransformCode::Sql(sql) => Some(sql),
            TransformCode::Component(_) | TransformCode::Native(_) => None,
        }
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

impl Component {
    /// Compiles a component, and checks it against the contract.
    fn compile(host: &Host, bytes: &[u8], config: &Config) -> anyhow::Result<(TableSchema, Input, Self)> {
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
        Ok((schema, input, Self { pre, transform, configure, rooms }))
    }
}

/// An instance of a plugin, for one thread. It cannot be used after its first fault.
pub struct Instance(Backend);

enum Backend {
    Component { store: Store<GuestState>, transform: Transform, rooms: Rooms },
    Sql { process: SqlInstance, sql: Arc<RowSql> },
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
                (Self::Typed(function), Events::Typed { records, ty, image, .. }) => {
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
            Backend::Component { store, .. } => store.data().memory.used,
            Backend::Sql { .. } | Backend::Native(_) => 0,
        }
    }

    /// Passes events to the plugin, and returns its unchecked answer. The plugin may take `ms` milliseconds.
    pub fn transform(&mut self, limits: &Limits, ms: u64, mut events: Events<'_>) -> Result<Output, Fault> {
        let (store, transform, rooms) = match &mut self.0 {
            Backend::Component { store, transform, rooms } => (store, transform, *rooms),
            Backend::Sql { process, sql } => return sql_output(process, sql, limits, ms, events),
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

/// Passes events to the process that evaluates a table's SQL.
fn sql_output(
    process: &mut SqlInstance,
    sql: &RowSql,
    limits: &Limits,
    ms: u64,
    events: Events<'_>,
) -> Result<Output, Fault> {
    let invalid = |reason: String| Fault { code: Code::InvalidOutput, reason };
    let Events::Typed { records, rows, image, .. } = events else {
        return Err(invalid("the events are not of the form that SQL takes".to_owned()));
    };
    let batch = sql.event.batch(records, rows, image).map_err(|error| invalid(error.to_string()))?;
    let SqlRows { rows, row_events, rejects, cpu } =
        process.evaluate(batch, ms, limits.output_bytes_max).map_err(|fault| sql_fault(fault, limits, ms))?;
    let rows = Rows { len: rows.num_rows(), columns: rows.columns().to_vec(), took: Duration::ZERO, elsewhere: cpu };
    Ok(Output { rows, row_events, rejects: rejects.into_iter().map(Rejected::from).collect() })
}
