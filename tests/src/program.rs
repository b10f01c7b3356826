//! A child process with a deadline. Its output is collected line by line while it runs, so that a test can wait
//! for a line, and is shown in full when something goes wrong.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::waiting::{DEADLINE, LOOK};

/// Bytes kept of each output stream. A program that prints more loses its oldest lines.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// How often an exit is looked for; the only thing here that no event announces.
const EXIT_POLL: Duration = Duration::from_millis(5);

/// Sends a signal to a process of ours. One that is to stop has stopped when this returns.
pub(crate) fn signal(pid: u32, signal: Signal) {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(process, signal).expect("the process is ours and alive");
    if signal == Signal::STOP {
        let since = Instant::now();
        while !is_stopped(pid) {
            assert!(since.elapsed() < DEADLINE, "process {pid} does not stop");
            thread::sleep(LOOK);
        }
    }
}

/// Whether every thread of a process has stopped: each does when it runs next, and until then others may still answer.
fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    tasks.flatten().all(|task| {
        let status = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The state stands behind the name, which may hold anything.
        status.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    })
}

/// A running child process. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
    /// Lines of stdout already handed out by [`Program::line_starting`].
    lines_read: usize,
}

/// One output stream of a child: filled by a reader thread until the child closes it.
#[derive(Debug, Default)]
struct Stream {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    bytes: usize,
    /// Lines dropped at the front to stay within the bound.
    dropped: usize,
    closed: bool,
}

impl Program {
    /// Starts `command` with all three standard streams piped. `name` is what failures call it.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(name: impl Into<String>, mut command: Command) -> Self {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name} does not start ({error}); `tests/run` installs what it needs")
            });
        let stdout = Stream::read(child.stdout.take().expect("stdout is piped"));
        let stderr = Stream::read(child.stderr.take().expect("stderr is piped"));
        Self { name, stdin: child.stdin.take(), child, stdout, stderr, lines_read: 0 }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line of stdout whose trimmed start is `head` and returns that line whole. Lines before
    /// it are passed over. Also takes a line that was printed before the call.
    ///
    /// # Panics
    /// When the program ends or `within` passes first; the message holds everything that it printed.
    pub fn line_starting(&mut self, head: &str, within: Duration) -> String {
        let mut read = self.lines_read;
        let found = self.stdout.wait(within, |lines| {
            while let Some(line) = lines.get(read) {
                read += 1;
                if line.trim_start().starts_with(head) {
                    return Some(line.to_owned());
                }
            }
            None
        });
        self.lines_read = read;
        found.unwrap_or_else(|| {
            self.fail(&format!("printed no line that starts with `{head}` within {} ms", within.as_millis()))
        })
    }

    /// Writes one line to the program's stdin.
    ///
    /// # Panics
    /// When the program has closed its stdin.
    pub fn send_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        if let Err(error) = writeln!(stdin, "{line}").and_then(|()| stdin.flush()) {
            self.fail(&format!("does not read its input ({error})"));
        }
    }

    /// Closes stdin, waits for the program to end by itself with status 0, and returns what it wrote to stdout.
    ///
    /// # Panics
    /// When it ends otherwise, or not within `within`; the message holds everything that it printed.
    pub fn finish(mut self, within: Duration) -> String {
        self.stdin = None;
        match self.wait(within) {
            Some(status) if status.success() => {}
            Some(status) => self.fail(&format!("ended with {status}")),
            None => self.fail(&format!("still ran after {} ms", within.as_millis())),
        }
        self.stdout.text()
    }

    /// Waits for the process to end, at most `within`. Both output streams are complete afterwards.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours can be waited for") {
                // A grandchild may hold the pipes open; what it prints later is not worth waiting for.
                let closed = |stream: &Stream| stream.wait_closed(Duration::from_secs(1));
                closed(&self.stdout);
                closed(&self.stderr);
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(EXIT_POLL);
        }
    }

    /// Asks the process to end (SIGTERM); [`Program::wait`] sees the end.
    ///
    /// # Panics
    /// When the process has already been waited for.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends the process a signal.
    ///
    /// # Panics
    /// When the process has already been waited for.
    pub fn signal(&self, what: Signal) {
        signal(self.pid(), what);
    }

    /// What the program has written to stdout so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What the program has written to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    fn fail(&self, what: &str) -> ! {
        // A program that has just died may have its last words still in the pipe.
        self.stderr.wait_closed(Duration::from_millis(200));
        panic!("{} {what}\n--- its stdout\n{}\n--- its stderr\n{}", self.name, self.stdout(), self.stderr())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only for a process that has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stream {
    fn read(source: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let filled = Arc::clone(&stream);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
                filled.push(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
                line.clear();
            }
            filled.close();
        });
        stream
    }

    fn push(&self, line: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += line.len() + 1;
        state.lines.push(line);
        if state.bytes > OUTPUT_BYTES_MAX {
            // Half goes at once, so that the cost of moving the rest stays small per line.
            let half = state.lines.len().div_ceil(2);
            let gone: usize = state.lines.drain(..half).map(|line| line.len() + 1).sum();
            state.bytes -= gone;
            state.dropped += half;
        }
        self.changed.notify_all();
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }

    /// Calls `find` on the lines now and after each change until it returns something, the stream ends or `within`
    /// passes.
    fn wait<T>(&self, within: Duration, mut find: impl FnMut(&Lines) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(found) = find(&state) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_closed(&self, within: Duration) {
        self.wait(within, |lines| lines.closed.then_some(()));
    }

    fn text(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).lines.join("\n")
    }
}

impl Lines {
    /// The line of this number, counted from the first one ever printed; an empty one where it was dropped.
    fn get(&self, number: usize) -> Option<&str> {
        match number.checked_sub(self.dropped) {
            Some(kept) => self.lines.get(kept).map(String::as_str),
            None => Some(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than a shell needs to start.
    const WITHIN: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::spawn("a script", command)
    }

    fn failure(act: impl FnOnce() + std::panic::UnwindSafe) -> String {
        let payload = std::panic::catch_unwind(act).expect_err("it should have failed");
        payload.downcast_ref::<String>().expect("the failure is a text").clone()
    }

    #[test]
    fn lines_are_found_in_order_and_early_ones_are_kept() {
        let mut program =
            shell("echo '  first 1'; echo noise; echo 'first 2'; read line; echo \"got $line\"");
        assert_eq!(program.line_starting("first", WITHIN), "  first 1");
        assert_eq!(program.line_starting("first", WITHIN), "first 2");
        program.send_line("this");
        assert_eq!(program.line_starting("got", WITHIN), "got this");
        assert_eq!(program.finish(WITHIN), "  first 1\nnoise\nfirst 2\ngot this");
    }

    #[test]
    fn a_bad_end_shows_both_outputs() {
        let text = failure(|| drop(shell("echo out; echo err >&2; exit 3").finish(WITHIN)));
        assert!(text.contains("exit status: 3") && text.contains("out") && text.contains("err"), "{text}");
    }

    #[test]
    fn a_line_that_never_comes_is_a_failure() {
        let text = failure(|| drop(shell("echo other").line_starting("wanted", WITHIN)));
        assert!(text.contains("`wanted`") && text.contains("other"), "{text}");
        let text = failure(|| drop(shell("exec sleep 60").finish(Duration::from_millis(50))));
        assert!(text.contains("still ran"), "{text}");
    }

    #[test]
    fn output_is_bounded_and_its_end_is_kept() {
        let output = shell(
            "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo \"line $i of a long output ......\"; done",
        )
        .finish(Duration::from_secs(60));
        assert!(output.len() <= OUTPUT_BYTES_MAX);
        assert!(output.ends_with("line 30000 of a long output ......"));
    }

    #[test]
    fn a_dropped_program_has_ended() {
        let program = shell("exec sleep 60");
        let process = std::path::PathBuf::from(format!("/proc/{}", program.pid()));
        assert!(process.exists());
        drop(program);
        assert!(!process.exists());
    }
}
