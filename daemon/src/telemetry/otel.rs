//! Sends the [spans](super::spans) by OTLP over HTTP to the collector that the environment names. Only with the feature
//! `otel`.
//!
//! The variables are those of OpenTelemetry: `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`; without it nothing
//! is sent), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_BSP_…`, `OTEL_SDK_DISABLED`.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::{Builder, Runtime};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::spans;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For sending the last spans.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// A process has one tracer provider, because it has one log.
static RUNNING: OnceLock<(SdkTracerProvider, Runtime)> = OnceLock::new();

/// The layer that sends the spans; `None` if the environment names no collector.
pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> anyhow::Result<Option<impl Layer<S>>> {
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    if disabled || !(set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
        return Ok(None);
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("otel").enable_all().build()?;
    let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build().context("create the OTLP client")?;
    let sender = Sender { client, runtime: runtime.handle().clone() };
    let exporter = SpanExporter::builder().with_http().with_http_client(sender).build();
    let exporter =
        exporter.context("set up OTLP: is OTEL_EXPORTER_OTLP_ENDPOINT a URL, such as http://localhost:4318?")?;
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if !set("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("silverd");
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("silverd"));
    RUNNING.set((provider, runtime)).map_err(|_| anyhow!("traces are already started"))?;
    let layer = layer.with_location(false).with_threads(false).with_tracked_inactivity(false);
    Ok(Some(layer.with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == spans::TARGET))))
}

/// Sends the remaining spans.
pub(crate) fn finish() {
    if let Some((provider, _)) = RUNNING.get()
        && let Err(failure) = provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)
    {
        tracing::warn!("send the last spans: {failure}");
    }
}

/// The HTTP client that delta-rs uses, too. It needs a tokio runtime, which the exporter's thread does not have.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let send = async move {
            let answer = client.execute(request.try_into()?).await?;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            *response.body_mut() = answer.bytes().await?;
            Ok(response)
        };
        self.runtime.spawn(send).await?
    }
}
