//! Time to normalize a phone number: `cargo bench --bench number`. Nanoseconds per number, and millions of numbers per
//! second, in CPU time of one thread.

#![allow(clippy::print_stdout)] // A benchmark prints its results.

use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use lea::phone::{NumberSettings, PhoneNumberNormalizer};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(300);

fn main() {
    let normalizer = |region: Option<&str>| {
        let settings =
            NumberSettings { default_region: region.map(str::to_owned), ..NumberSettings::default() };
        PhoneNumberNormalizer::new(settings).expect("the defaults are right")
    };
    println!("{:<40} {:<6} {:>9} {:>9}", "text", "region", "ns", "million/s");
    for text in [
        "+972598294121",
        "972598294121",
        "00972598294121",
        "901511972598294121",
        "07700900123",
        "100",
        "friendly-scanner",
        "+44 (0)7700 900123",
        "sip:9011972598294121@198.51.100.7",
    ] {
        for region in [None, Some("GB")] {
            let ns = measure(&normalizer(region), text);
            println!("{text:<40} {:<6} {ns:>9.1} {:>9.1}", region.unwrap_or("-"), 1000.0 / ns);
        }
    }
}

/// Returns the median of the rounds, in nanoseconds per number.
fn measure(normalizer: &PhoneNumberNormalizer, text: &str) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (start, mut numbers) = (thread_time(), 0_u32);
            while thread_time() - start < ROUND {
                for _ in 0..1000 {
                    black_box(normalizer.normalize(black_box(text)));
                }
                numbers += 1000;
            }
            (thread_time() - start).as_nanos() as f64 / f64::from(numbers)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
