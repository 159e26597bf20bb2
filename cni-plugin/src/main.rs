use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    let var = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
    if let Some(argument) = std::env::args().nth(1) {
        if matches!(argument.as_str(), "version" | "--version" | "-V") {
            println!("rhumb-cni {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        eprintln!(
            "rhumb-cni is executed by a container runtime (CNI_COMMAND and so on in the environment, the network configuration on standard input); it takes no arguments but --version"
        );
        return ExitCode::from(2);
    }
    let (output, status) = rhumb_cni::verbs::run(&var, std::io::stdin().lock());
    let written = std::io::stdout().lock().write_all(output.as_bytes());
    match written {
        Ok(()) => ExitCode::from(status),
        Err(e) => {
            eprintln!("rhumb-cni: writing the result to standard output: {e}");
            ExitCode::FAILURE
        }
    }
}
