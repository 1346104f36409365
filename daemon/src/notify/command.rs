//! Runs a program with a notification as JSON on its standard input.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use silverd_core::config::NotifyCommand;
use silverd_core::notify::{Notification, json};
use silverd_core::zone::Zone;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tracing::info;

use super::{SendError, one_line};

/// What a program prints beyond this is dropped.
const OUTPUT_BYTES_MAX: usize = 4 << 10;
/// For what the program wrote last, once it has ended.
const OUTPUT_TIMEOUT: Duration = Duration::from_millis(500);

/// It succeeds if the program ends with exit code 0. Dropping the future ends the program, and what it has started.
pub(super) async fn send(
    command: &NotifyCommand,
    notification: &Notification,
    zone: Zone,
    base_dir: &Path,
) -> Result<(), SendError> {
    let failed = |what: &str, failure: io::Error| SendError::retry(format!("{what} {}: {failure}", command.program));
    let mut group = Group::spawn(command, notification, zone, base_dir).map_err(|failure| failed("run", failure))?;
    let input = format!("{}\n", json::body(notification, zone));
    let child = &mut group.child;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut output = Vec::new();
    let ended = {
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program need not read it.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let read = read_bounded(stdout, stderr, &mut output);
        tokio::pin!(write, read);
        let mut is_written = false;
        let mut is_read = false;
        let ended = loop {
            tokio::select! {
                ended = child.wait() => break ended,
                () = &mut write, if !is_written => is_written = true,
                () = &mut read, if !is_read => is_read = true,
            }
        };
        if !is_read {
            // What runs on in the background may keep the pipes open.
            let _ = tokio::time::timeout(OUTPUT_TIMEOUT, &mut read).await;
        }
        ended
    };
    let ended = ended.map_err(|failure| failed("wait for", failure))?;
    let output = one_line(&String::from_utf8_lossy(&output));
    if ended.success() {
        if !output.is_empty() {
            info!(program = %command.program, "the command of a notification printed: {output}");
        }
        return Ok(());
    }
    let printed = if output.is_empty() { String::new() } else { format!(": {output}") };
    Err(SendError::retry(format!("{} {}{printed}", command.program, how(ended))))
}

fn how(ended: ExitStatus) -> String {
    match ended.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was killed ({ended})"),
    }
}

/// Reads both to their ends, and keeps the first bytes.
async fn read_bounded(
    mut stdout: Option<impl AsyncRead + Unpin>,
    mut stderr: Option<impl AsyncRead + Unpin>,
    output: &mut Vec<u8>,
) {
    let (mut of_stdout, mut of_stderr) = ([0; 1024], [0; 1024]);
    loop {
        let bytes = tokio::select! {
            read = read_some(&mut stdout, &mut of_stdout), if stdout.is_some() => {
                if read == 0 {
                    stdout = None;
                }
                &of_stdout[..read]
            }
            read = read_some(&mut stderr, &mut of_stderr), if stderr.is_some() => {
                if read == 0 {
                    stderr = None;
                }
                &of_stderr[..read]
            }
            else => return,
        };
        let room = OUTPUT_BYTES_MAX.saturating_sub(output.len());
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// 0 at the end, and after a failure.
async fn read_some(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match pipe {
        Some(pipe) => pipe.read(buffer).await.unwrap_or(0),
        None => 0,
    }
}

/// A program and what it has started; all of it ends when this is dropped.
struct Group {
    child: Child,
    id: Option<i32>,
}

impl Group {
    fn spawn(command: &NotifyCommand, notification: &Notification, zone: Zone, base_dir: &Path) -> io::Result<Self> {
        let variables = json::variables(notification, zone).map(|(name, text)| (name, text.replace('\0', "")));
        let child = Command::new(program(&command.program, base_dir))
            .args(command.arguments.iter().map(|argument| argument.expose()))
            .envs(variables)
            .current_dir(base_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self { child, id })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            // SAFETY: the call takes only numbers. The id is that of a group which this process has created, and which no
            // other one gets while a member is left; without one, the call finds no group.
            unsafe { libc::kill(-id, libc::SIGKILL) };
        }
    }
}

/// A path is relative to `pipeline.toml`; a name is searched for in `PATH`.
pub(super) fn program(program: &str, base_dir: &Path) -> PathBuf {
    match program.contains('/') {
        true => std::path::absolute(base_dir.join(program)).unwrap_or_else(|_| base_dir.join(program)),
        false => PathBuf::from(program),
    }
}
