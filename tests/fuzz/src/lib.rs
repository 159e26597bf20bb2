//! Fuzzing as tests: inputs that follow from one number, made by mutation of valid ones. A test runs
//! some thousand cases, always the same; `RHUMB_FUZZ_SECONDS` runs new ones for so long, and
//! `RHUMB_FUZZ_SEED`, which a failure prints, runs one again.

mod mutate;

use std::time::{Duration, Instant, SystemTime};

pub use mutate::{bytes, soup, value};

/// The longest that a case may take, on a busy machine and without optimization.
const PATIENCE: Duration = Duration::from_secs(10);

/// A splitmix64 stream: a whole case follows from one number.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// Below `sides`, which must not be 0.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    /// An index below `length`; 0 if there is none.
    pub fn index(&mut self, length: usize) -> usize {
        match length {
            0 => 0,
            length => self.roll(length as u64) as usize,
        }
    }

    pub fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &'a [&T]) -> &'a T {
        from[self.index(from.len())]
    }
}

/// Names the case if it panics, or takes too long.
struct Case<'a> {
    name: &'a str,
    seed: u64,
    began: Instant,
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let seed = self.seed;
        if std::thread::panicking() {
            eprintln!("{}: the case of RHUMB_FUZZ_SEED={seed} failed", self.name);
        } else if took > PATIENCE {
            panic!(
                "{}: the case of RHUMB_FUZZ_SEED={seed} took {took:?}",
                self.name
            );
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

/// The seeds of a test: `cases` of them, or what the environment asks for.
pub fn seeds(cases: u64) -> Box<dyn Iterator<Item = u64>> {
    if let Some(seed) = number("RHUMB_FUZZ_SEED") {
        return Box::new(std::iter::once(seed));
    }
    let Some(seconds) = number("RHUMB_FUZZ_SECONDS") else {
        return Box::new(0..cases);
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let first = now.map_or(0, |since| since.as_nanos() as u64);
    let end = Instant::now() + Duration::from_secs(seconds);
    Box::new((first..).take_while(move |_| Instant::now() < end))
}

/// Whether one case is run again, which says nothing about how many do what.
pub fn replays() -> bool {
    std::env::var_os("RHUMB_FUZZ_SEED").is_some()
}

/// Runs a test's cases. `case` fails by panicking.
pub fn run(name: &str, cases: u64, mut case: impl FnMut(&mut Dice)) {
    for seed in seeds(cases) {
        let _case = watch(name, seed);
        case(&mut Dice::new(seed));
    }
}

/// For a case that `run` can't call: names it while the result lives.
pub fn watch(name: &str, seed: u64) -> impl Drop + '_ {
    Case {
        name,
        seed,
        began: Instant::now(),
    }
}
