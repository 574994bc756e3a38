//! Named threads that are joined.

use std::thread::{Builder, JoinHandle};

use crate::{Error, Result};

/// Starts a thread. `ps -L` shows at most 15 bytes of its name.
pub(crate) fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    Builder::new().name(name.into()).spawn(run).map_err(Error::system("start a thread"))
}

/// Joins a thread and returns its result. A panic becomes [`Error::Thread`].
pub(crate) fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    let name = name_of(&thread);
    thread.join().unwrap_or_else(|_| Err(Error::Thread(name)))
}

/// Joins all threads, and returns the first error after the last one has ended.
pub(crate) fn join_all(threads: impl IntoIterator<Item = JoinHandle<Result<()>>>) -> Result<()> {
    threads.into_iter().map(join).fold(Ok(()), Result::and)
}

/// Joins the thread of a single connection. A panic concerns only that connection, so it is only logged.
pub(crate) fn join_connection(thread: JoinHandle<()>) {
    let name = name_of(&thread);
    if thread.join().is_err() {
        log::error!("thread_failed name={name} note=\"this is a defect in lea\"");
    }
}

fn name_of<T>(thread: &JoinHandle<T>) -> String {
    thread.thread().name().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_the_name_of_the_thread() {
        let failed = spawn("fails", || -> Result<()> { panic!("on purpose") }).unwrap();
        let works = spawn("works", || Ok(())).unwrap();
        assert!(matches!(join_all([failed, works]), Err(Error::Thread(name)) if name == "fails"));
        assert_eq!(join(spawn("works", || Ok(7)).unwrap()).unwrap(), 7);
    }
}
