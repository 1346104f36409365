//! What runs beside the pipeline, and never in its way: the status on the terminal, Gold, the care for files, the page.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use silverd_core::config::diff::Changes;
use silverd_core::config::{Http, Pipeline};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::delta::OPENINGS_MAX;
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

/// How long a merge of files may take to notice that it is over.
const CARE_PATIENCE: Duration = Duration::from_secs(2);
/// How long Gold may take at the end to come up to date.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a pipeline with all that belongs to it until it ends.
pub async fn run(
    run: Run,
    args: PageArgs,
    shown: watch::Receiver<Option<Arc<Status>>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let pipeline = run.pipeline.borrow().clone();
    args.address(&pipeline.http)?;
    let flow_ended = CancellationToken::new();
    let display = tokio::spawn(status::show(shown.clone(), flow_ended.clone()));
    let beside = Beside { args, base: run.base.clone(), fresh: run.fresh.clone(), shown };
    let patience = if run.drain { Duration::MAX } else { PATIENCE };
    let beside = tokio::spawn(beside.run(run.pipeline.clone(), flow_ended.clone(), patience, stop.clone()));
    let result = flow::run(run, stop).await;
    flow_ended.cancel();
    let _ = display.await;
    let _ = beside.await;
    result
}

/// Gold, the care for files, and the page.
struct Beside {
    args: PageArgs,
    base: PathBuf,
    fresh: Arc<Fresh>,
    shown: watch::Receiver<Option<Arc<Status>>>,
}

/// All of them at work.
struct Working {
    questions: Questions,
    /// Tells that the care for files has ended.
    care: tokio::sync::oneshot::Receiver<()>,
    finish: CancellationToken,
    ended: CancellationToken,
}

impl Beside {
    /// Keeps them at work until the flow has ended, and begins anew where pipeline.toml asks for it.
    async fn run(
        self,
        mut pipeline: watch::Receiver<Arc<Pipeline>>,
        flow_ended: CancellationToken,
        patience: Duration,
        stop: CancellationToken,
    ) {
        let mut current = pipeline.borrow_and_update().clone();
        let mut working = self.start(&current).await;
        loop {
            let next = tokio::select! {
                () = flow_ended.cancelled() => break,
                next = flow::edited(&mut pipeline) => next,
            };
            let changes = Changes::between(&current, &next);
            if !changes.beside && !changes.all {
                continue;
            }
            if let Some(working) = working.take() {
                working.end(PATIENCE, &stop).await;
            }
            current = next;
            working = self.start(&current).await;
        }
        if let Some(working) = working {
            working.end(patience, &stop).await;
        }
    }

    async fn start(&self, pipeline: &Pipeline) -> Option<Working> {
        let address = match self.args.address(&pipeline.http) {
            Ok(address) => address,
            Err(failure) => {
                warn!("the page is not served: {failure:#}");
                None
            }
        };
        self.fresh.turn(address.is_some());
        let tables = Arc::new(Tables::new(pipeline, &self.base, self.fresh.clone()));
        let board = Arc::new(Board::new(pipeline));
        let keeper = Keeper::new(pipeline, &self.base, tables.clone(), board.clone());
        let kept = Arc::<maintenance::Board>::default();
        let care = maintenance::Keeper::new(pipeline, &self.base, kept.clone());
        let (finish, ended) = (CancellationToken::new(), CancellationToken::new());
        let asker = match address {
            Some(address) => {
                let token = if self.args.no_token { None } else { pipeline.http.token.clone() };
                let page = Page::new(pipeline, token, self.shown.clone(), board, kept);
                web::serve(page, Place { address, elsewhere: self.args.elsewhere }, tables, ended.clone()).await
            }
            None => None,
        };
        let started = Questions::start(keeper, asker, finish.clone(), ended.clone())
            .and_then(|questions| Ok((questions, care.start(finish.clone())?)));
        match started {
            Ok((questions, care)) => Some(Working { questions, care, finish, ended }),
            Err(failure) => {
                warn!("start what runs beside the pipeline: {failure:#}; it goes on without Gold, the page and merges");
                None
            }
        }
    }
}

impl Working {
    /// Ends the page once Gold has come up to date, or has taken too long.
    async fn end(self, patience: Duration, stop: &CancellationToken) {
        self.finish.cancel();
        self.questions.finish(patience, stop).await;
        let _ = tokio::time::timeout(CARE_PATIENCE, self.care).await;
        self.ended.cancel();
    }
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
        let runtime = runtime.worker_threads(1).max_blocking_threads(OPENINGS_MAX).thread_name("sql").enable_all();
        let runtime = runtime.build()?;
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

    /// Lets Gold come up to date, for a while.
    async fn finish(self, patience: Duration, stop: &CancellationToken) {
        let over = async {
            if patience == Duration::MAX {
                stop.cancelled().await;
            }
            tokio::time::sleep(patience.min(PATIENCE)).await;
        };
        tokio::select! {
            _ = self.gold => {}
            () = over => warn!("the Gold tables are not up to date; they will be after the next start"),
        }
    }
}
