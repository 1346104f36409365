//! What runs beside the pipeline, and never in its way: the status on the terminal, Gold, the care for files, the page.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use silverd_core::config::Http;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::flow::{self, Run};
use crate::gold::{Board, Keeper};
use crate::live::Fresh;
use crate::maintenance;
use crate::sql::Tables;
use crate::status::{self, Status};
use crate::web::{self, Asker, Page, Place};

#[derive(clap::Args, Debug, Default)]
pub struct PageArgs {
    /// Where the page is served, instead of [http] in pipeline.toml: an address and a port, or `off`
    #[arg(long, env = "SILVERD_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Ask for no token though others may reach the address: for a container whose port is published to loopback alone.
    /// Only requests for localhost are answered then
    #[arg(long)]
    no_token: bool,
    /// Try the next ports if this one is taken
    #[arg(skip)]
    pub elsewhere: bool,
}

impl PageArgs {
    /// The address, unless the page is off. Nothing is bound where others can reach it without a token.
    fn address(&self, http: &Http) -> anyhow::Result<Option<SocketAddr>> {
        let address = match self.listen.as_deref() {
            None => http.listen,
            Some("off") => None,
            Some(text) => match text.replacen("localhost:", "127.0.0.1:", 1).parse() {
                Ok(address) => Some(address),
                Err(_) => bail!("--listen {text}: expected an IP address and a port, such as 127.0.0.1:8080, or off"),
            },
        };
        match address {
            Some(address) if !address.ip().is_loopback() && http.token.is_none() && !self.no_token => bail!(
                "--listen {address}: others can reach this address, and [http] has no token. Add \
                 `token = \"${{SILVERD_TOKEN}}\"` to [http] in pipeline.toml, or listen on 127.0.0.1:{}. In a container whose \
                 port is published to loopback alone, --no-token will do",
                address.port()
            ),
            address => Ok(address),
        }
    }
}

/// How long a merge may take to notice that it is over.
const CARE_PATIENCE: Duration = Duration::from_secs(2);
/// How long Gold may take at the end to come up to date.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a pipeline with all that belongs to it until it ends.
pub async fn run(
    mut run: Run,
    args: PageArgs,
    shown: watch::Receiver<Option<Arc<Status>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let address = args.address(&run.pipeline.http)?;
    run.fresh = Arc::new(if address.is_some() { Fresh::on() } else { Fresh::default() });
    let tables = Arc::new(Tables::new(&run.pipeline, &run.base, run.fresh.clone()));
    let board = Arc::new(Board::new(&run.pipeline));
    let keeper = Keeper::new(&run.pipeline, &run.base, tables.clone(), board.clone());
    let kept = Arc::<maintenance::Board>::default();
    let care = maintenance::Keeper::new(&run.pipeline, &run.base, kept.clone());
    let (flow_ended, ended) = (CancellationToken::new(), CancellationToken::new());
    let asker = match address {
        Some(address) => {
            let token = if args.no_token { None } else { run.pipeline.http.token.clone() };
            let page = Page::new(&run.pipeline, token, shown.clone(), board, kept);
            web::serve(page, Place { address, elsewhere: args.elsewhere }, tables, ended.clone()).await
        }
        None => None,
    };
    let questions = Questions::start(keeper, asker, flow_ended.clone(), ended.clone())?;
    let care = care.start(flow_ended.clone())?;
    let display = tokio::spawn(status::show(shown, flow_ended.clone()));
    let drain = run.drain;
    let result = flow::run(run, stop.clone()).await;
    flow_ended.cancel();
    let _ = display.await;
    questions.finish(drain, &stop).await;
    let _ = tokio::time::timeout(CARE_PATIENCE, care).await;
    ended.cancel();
    result
}

/// The thread on which all SQL runs: Gold's and the page's, one question at a time, on one core at most.
struct Questions {
    gold: tokio::sync::oneshot::Receiver<()>,
}

impl Questions {
    fn start(
        keeper: Keeper,
        asker: Option<Asker>,
        finish: CancellationToken,
        ended: CancellationToken,
    ) -> anyhow::Result<Self> {
        let (done, gold) = tokio::sync::oneshot::channel();
        // Of one worker, and not of the current thread alone: on such a one, delta-rs starts a runtime of its own for every
        // look at a log.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).max_blocking_threads(4).thread_name("sql").enable_all().build()?;
        let gold_task = async move {
            keeper.run(finish).await;
            let _ = done.send(());
        };
        let page_task = async {
            if let Some(asker) = asker {
                asker.run(ended).await;
            }
        };
        std::thread::Builder::new()
            .name("sql".to_owned())
            .spawn(move || runtime.block_on(futures::future::join(gold_task, page_task)))?;
        Ok(Self { gold })
    }

    /// Lets Gold come up to date: in a drain for as long as it takes, else for a while.
    async fn finish(self, drain: bool, stop: &CancellationToken) {
        let patience = async {
            if drain {
                stop.cancelled().await;
            }
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            _ = self.gold => {}
            () = patience => warn!("the Gold tables are not up to date; they will be after the next start"),
        }
    }
}
