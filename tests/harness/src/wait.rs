//! Waiting for a condition with a deadline: tests never sleep for luck.

use anyhow::anyhow;
use std::future::Future;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);

/// Asks `condition` until it gives a value. An error counts as "not yet" and is shown if the
/// deadline passes.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let last = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            return Err(late(what, deadline, last));
        }
        std::thread::sleep(PAUSE);
    }
}

/// The same for futures.
pub async fn wait_until<T, F>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + deadline;
    loop {
        let last = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= end {
            return Err(late(what, deadline, last));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn late(what: &str, deadline: Duration, last: Option<anyhow::Error>) -> anyhow::Error {
    match last {
        Some(error) => error.context(format!("waited {deadline:?} in vain for: {what}")),
        None => anyhow!("waited {deadline:?} in vain for: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_comes_late() {
        let mut asked = 0;
        let value = wait_for("the third time", Duration::from_secs(5), || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn shows_the_last_error() {
        let error =
            wait_for::<()>("nothing", Duration::ZERO, || Err(anyhow!("the reason"))).unwrap_err();
        assert!(format!("{error:#}").contains("nothing: the reason"));
    }
}
