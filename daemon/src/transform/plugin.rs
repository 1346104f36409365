//! A plugin: a component that was compiled, whose world keeps the contract, and whose instances turn batches into rows.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use sha2::{Digest as _, Sha256};
use silverd_core::chunk::Chunk;
use silverd_core::config::Limits;
use silverd_core::schema::{TRANSFORM, TableSchema};
use silverd_core::verdict::{Code, Reject};
use wasmtime::component::{ComponentExportIndex, InstancePre, TypedFunc};
use wasmtime::{Store, Trap};
use wit_parser::decoding::{DecodedWasm, decode};

use super::batch::{Batch, Config, Output, RejectCode};
use super::host::{Host, State, deadline, foreign};
use super::logs::{LOGGING, Logs};

/// The custom section in which the SDK carries the WIT text of the table, for its doc comments.
const WIT_SECTION: &str = "silverd:wit";
/// The interface through which a plugin takes its settings.
const CONFIGURE: (&str, &str) = ("silverd:pipeline/plugin@0.1.0", "configure");
/// How wasmtime's message ends that says that an answer is over its budget; the error itself is private there.
const HOSTCALL_FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// The SHA-256 of a plugin's file, by which commits and rejects name it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Digest(Arc<str>);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        let hex = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self(hex.into())
    }

    /// The digest that these digits write.
    pub fn parse(digits: &str) -> Option<Self> {
        let hex = digits.len() == 64 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self(digits.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as people read them.
    pub fn short(digits: &str) -> &str {
        digits.get(..12).unwrap_or(digits)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::short(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A component that keeps the contract, ready to be instantiated.
pub struct Plugin {
    pub digest: Digest,
    /// Of the settings and reference files that it was given.
    pub given: Digest,
    pub schema: TableSchema,
    host: Arc<Host>,
    pre: InstancePre<State>,
    transform: ComponentExportIndex,
    configure: Option<ComponentExportIndex>,
    config: Config,
    limits: Limits,
    logs: Arc<Logs>,
    native: Option<MakeNative>,
}

/// A plugin's function, linked into this program: for `silverd bench`, which tells what WebAssembly costs.
pub(crate) trait Native: Send {
    fn transform(&mut self, chunk: &Chunk, rows: &[u32]) -> Output;
}

pub(crate) type MakeNative = fn(&Config) -> anyhow::Result<Box<dyn Native>>;

/// Why an instance gave no verdicts on a batch. The instance is of no more use.
#[derive(Clone, Debug)]
pub struct Fault {
    pub code: Code,
    /// What the guest did, in a sentence.
    pub reason: String,
}

impl Plugin {
    /// Reads, compiles and checks the plugin of a table, and instantiates it once with its configuration.
    pub fn load(host: Arc<Host>, table: &str, file: &Path, config: Config, limits: Limits) -> anyhow::Result<Self> {
        let bytes = std::fs::read(file).with_context(|| format!("read plugin {}", file.display()))?;
        let plugin = Self::compile(host, table, &bytes, config, limits);
        let plugin = plugin.with_context(|| format!("load plugin {}", file.display()))?;
        if let Some(store) = &plugin.host.store {
            store.keep(&plugin.digest, &bytes);
        }
        Ok(plugin)
    }

    pub fn compile(host: Arc<Host>, table: &str, bytes: &[u8], config: Config, limits: Limits) -> anyhow::Result<Self> {
        let (digest, given) = (Digest::of(bytes), config.digest());
        let encoded = encode(bytes)?;
        let binary = encoded.as_deref().unwrap_or(bytes);
        let schema = read_schema(binary)?;
        let component = host.compiler.component(binary).context("compile it")?;
        let export = |interface: &str, function: &str| {
            let interface = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&interface), function)
        };
        let transform = export(&schema.interface, TRANSFORM)
            .ok_or_else(|| anyhow!("it does not export `{}` of `{}`", TRANSFORM, schema.interface))?;
        let configure = export(CONFIGURE.0, CONFIGURE.1);
        let configured = !config.settings.is_empty() || !config.reference.is_empty();
        if configure.is_none() && configured {
            bail!(
                "pipeline.toml gives it settings or reference data, and it does not export `{}`, which takes them",
                CONFIGURE.0
            );
        }
        let pre = host
            .linker
            .instantiate_pre(&component)
            .map_err(foreign)
            .context("link it: a plugin may import WASI 0.2 and wasi:logging 0.1.0-draft, and nothing else")?;
        let logs = Logs::new(table, &schema.interface, &digest, limits.log_lines_per_second);
        let plugin =
            Self { digest, given, schema, host, pre, transform, configure, config, limits, logs, native: None };
        plugin.instantiate()?;
        Ok(plugin)
    }

    /// The same plugin, whose instances are a function of this program.
    pub(crate) fn with_native(self, native: MakeNative) -> Self {
        Self { native: Some(native), ..self }
    }

    /// A new instance, in a store of its own, configured.
    pub fn instantiate(&self) -> anyhow::Result<Instance> {
        if let Some(native) = self.native {
            return Ok(Instance(Runs::Native(native(&self.config)?)));
        }
        let mut store = Store::new(&self.host.engine, State::new(&self.limits, self.logs.clone()));
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(self.limits.output_bytes_max);
        let ms = self.limits.transform_ms_max;
        store.set_epoch_deadline(deadline(ms));
        let instance = self
            .pre
            .instantiate(&mut store)
            .map_err(|error| match error.is::<Trap>() || store.data().memory.refused.is_some() {
                true => anyhow!(fault_of(&mut store, &self.limits, ms, error).reason),
                false => foreign(error),
            })
            .context("instantiate it")?;
        if let Some(configure) = &self.configure {
            let configure = instance
                .get_typed_func::<(&Config,), (Result<(), String>,)>(&mut store, configure)
                .map_err(foreign)
                .context("its `configure` has another signature than the contract (see wit/types.wit)")?;
            let (answer,) = configure
                .call(&mut store, (&self.config,))
                .map_err(|error| anyhow!(fault_of(&mut store, &self.limits, ms, error).reason))
                .context("call its `configure`")?;
            store.data_mut().words.survived();
            answer.map_err(|refusal| anyhow!("it refuses its configuration: {refusal}"))?;
        }
        let transform = instance
            .get_typed_func::<(Batch<'static>,), (Output,)>(&mut store, &self.transform)
            .map_err(foreign)
            .context("its `transform` has another signature than the contract (see wit/types.wit)")?;
        Ok(Instance(Runs::Wasm { store, transform }))
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether another one is this one: the same file, given the same.
    pub fn is(&self, other: &Plugin) -> bool {
        self.digest == other.digest && self.given == other.given
    }

    /// Where its guests' lines are told.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }
}

/// A plugin at work. Not shared between threads; gone after its first fault.
pub struct Instance(Runs);

enum Runs {
    Wasm { store: Store<State>, transform: TypedFunc<(Batch<'static>,), (Output,)> },
    Native(Box<dyn Native>),
}

impl Instance {
    /// The memory that the guest has come to; a guest never gives any back.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Runs::Wasm { store, .. } => store.data().memory.used,
            Runs::Native(_) => 0,
        }
    }

    /// Hands the records `rows` of the chunk over, and takes the plugin's answer as it is. It has `ms` milliseconds.
    pub fn transform(&mut self, limits: &Limits, ms: u64, chunk: &Chunk, rows: &[u32]) -> Result<Output, Fault> {
        let (store, transform) = match &mut self.0 {
            Runs::Wasm { store, transform } => (store, transform),
            Runs::Native(native) => return Ok(native.transform(chunk, rows)),
        };
        store.set_epoch_deadline(deadline(ms));
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.data_mut().memory.refused = None;
        store.data_mut().words.begin();
        // SAFETY: the function was checked with the same types but for the lifetime, which no check depends on; the
        // borrow ends with the call.
        let transform = unsafe { TypedFunc::<(Batch<'_>,), (Output,)>::new_unchecked(*transform.func()) };
        match transform.call(&mut *store, (Batch::new(chunk, rows),)) {
            Ok((output,)) => {
                store.data_mut().words.survived();
                Ok(output)
            }
            Err(error) => Err(fault_of(store, limits, ms, error)),
        }
    }
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

impl From<super::batch::Rejected> for Reject {
    fn from(rejected: super::batch::Rejected) -> Self {
        Reject { event: rejected.event, code: rejected.code.into(), reason: rejected.reason }
    }
}

/// What a failed call of `ms` milliseconds at most says of the guest. Denied memory surfaces as a plain `unreachable`, so
/// the limiter is asked first.
fn fault_of(store: &mut Store<State>, limits: &Limits, ms: u64, error: wasmtime::Error) -> Fault {
    if let Some(wanted) = store.data().memory.refused {
        let reason = format!(
            "it asked for {wanted} bytes of memory; limits.memory_bytes_max allows {}",
            limits.memory_bytes_max
        );
        return Fault { code: Code::Memory, reason };
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) if ms < limits.transform_ms_max => Fault {
            code: Code::Timeout,
            reason: format!(
                "it ran for longer than {ms} ms, its share of the {} ms that limits.transform_ms_max allows a batch",
                limits.transform_ms_max
            ),
        },
        Some(Trap::Interrupt) => {
            Fault { code: Code::Timeout, reason: format!("it ran for longer than limits.transform_ms_max, {ms} ms") }
        }
        Some(trap) => {
            let reason = match (store.data_mut().words.last(), trap) {
                // How Rust and others end after a panic: the words say it all.
                (Some(words), Trap::UnreachableCodeReached) => match frames(&error) {
                    frames if frames.is_empty() => words,
                    frames => format!("{words};{frames}"),
                },
                (words, trap) => {
                    let trap = trap.to_string();
                    let words = words.map_or(String::new(), |words| format!("{words}; "));
                    format!("{words}it trapped: {}{}", trap.trim_start_matches("wasm trap: "), frames(&error))
                }
            };
            Fault { code: Code::Trap, reason }
        }
        None if error.root_cause().to_string().ends_with(HOSTCALL_FUEL_EXHAUSTED) => Fault {
            code: Code::InvalidOutput,
            reason: format!("its answer is larger than limits.output_bytes_max, {} bytes", limits.output_bytes_max),
        },
        None => Fault { code: Code::InvalidOutput, reason: format!("its answer is not valid: {}", error.root_cause()) },
    }
}

/// The innermost functions of a trap's backtrace, by their names.
fn frames(error: &wasmtime::Error) -> String {
    let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() else { return String::new() };
    // What stands between the mistake and the trap in each Rust guest.
    let of_rust = |name: &String| {
        let modules = ["core::", "std::", "alloc::", "__rustc::"];
        name == "abort" || name.contains("panic") || modules.iter().any(|module| name.starts_with(module))
    };
    let names: Vec<String> = trace
        .frames()
        .iter()
        .filter_map(|frame| frame.func_name())
        .map(|name| format!("{:#}", rustc_demangle::demangle(name)))
        .filter(|name| !of_rust(name))
        .take(4)
        .collect();
    if names.is_empty() { String::new() } else { format!(" in {}", names.join(" < ")) }
}

/// Makes a component of a core module; `None` if it is a component already.
pub(super) fn encode(bytes: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    if !bytes.starts_with(b"\0asm") {
        bail!("it is no WebAssembly file: its first bytes are not `\\0asm`");
    }
    if wasmparser::Parser::is_component(bytes) {
        return Ok(None);
    }
    let imports = core_imports(bytes).context("parse it")?;
    if let Some((module, name)) = imports.iter().find(|(module, _)| module != LOGGING) {
        bail!(
            "it is a core module that imports `{module}.{name}`. Build it with `cargo build --release --target \
             wasm32-unknown-unknown`, or as a component with `cargo component build --release`"
        );
    }
    let encoded = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(bytes)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| anyhow!("{error:#}"))
        .context("make a component of it: is it built with the silverd-plugin SDK or with wit-bindgen?")?;
    Ok(Some(encoded))
}

fn core_imports(bytes: &[u8]) -> anyhow::Result<Vec<(String, String)>> {
    let mut imports = Vec::new();
    for payload in wasmparser::Parser::new(0).parse_all(bytes) {
        if let wasmparser::Payload::ImportSection(section) = payload? {
            for import in section.into_imports() {
                let import = import?;
                imports.push((import.module.to_owned(), import.name.to_owned()));
            }
        }
    }
    Ok(imports)
}

fn read_schema(component: &[u8]) -> anyhow::Result<TableSchema> {
    let decoded = decode(component).map_err(|error| anyhow!("{error:#}")).context("read its world")?;
    let DecodedWasm::Component(resolve, world) = decoded else {
        bail!("it is a WIT package, not a component");
    };
    let docs = wit_text(component);
    Ok(TableSchema::of_world(&resolve, world, docs.as_deref())?)
}

/// The WIT text that the component's core module carries.
fn wit_text(component: &[u8]) -> Option<String> {
    for payload in wasmparser::Parser::new(0).parse_all(component) {
        if let wasmparser::Payload::CustomSection(section) = payload.ok()?
            && section.name() == WIT_SECTION
        {
            return String::from_utf8(section.data().to_vec()).ok();
        }
    }
    None
}
