//! `netprobe`: echo servers and a probing client for the pods of tests and demos.
//!
//! It runs in images without any library, so it is linked statically and takes addresses, not
//! names. Each try prints one line of JSON.

mod options;
mod probe;
mod registry;
mod serve;
mod stream;

use std::process::ExitCode;

const HELP: &str = "\
netprobe serve [--tcp PORT]... [--udp PORT]... [--http PORT]... [--name NAME]
    Echo servers on every address, IPv4 and IPv6. Each answer is a line of JSON with the host's
    name, the server's and the client's address. TCP answers line by line; HTTP answers any path,
    and /status/N with status N.

netprobe connect tcp|udp|http ADDRESS:PORT [--count N | --for SECONDS] [--interval MS]
                 [--timeout MS] [--bind ADDRESS] [--path PATH] [--summary]
    A new connection (or socket) each try; prints a line of JSON a try, with the kind of a failure:
    refused, timeout, unreachable, denied, reset, closed, other. Fails if any try failed.
    --summary prints one line about all of them instead.

netprobe stream tcp|udp ADDRESS:PORT [--for SECONDS] [--interval MS] [--timeout MS]
    One long-lived connection with requests and replies; prints one line: sent, received, lost, the
    longest gap. Fails if anything was lost.

netprobe registry DIRECTORY [--listen ADDRESS:PORT]
    Serves an OCI image layout read-only over HTTP, as the OCI distribution API has it.

An IPv6 address stands in brackets: [fd00::1]:80
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let result = match command.as_str() {
        "serve" => serve::run(rest),
        "connect" | "probe" => probe::run(rest),
        "stream" => stream::run(rest),
        "registry" => registry::run(rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        "" => Err("no command".to_owned()),
        other => Err(format!("no command `{other}`")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("netprobe: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}
