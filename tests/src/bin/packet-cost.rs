//! Prints what a packet costs in each program. Takes root.

fn main() -> anyhow::Result<()> {
    for cost in rhumb_tests::cost::measure(1_000_000)? {
        println!("{:>6} ns  {}", cost.nanoseconds, cost.what);
    }
    Ok(())
}
