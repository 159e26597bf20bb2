//! `rhumb`: what the node's agent knows and does, for people.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use hyper_util::rt::TokioIo;
use rhumb_agent_api as api;
use rhumb_agent_api::agent_client::AgentClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

#[derive(Debug, Parser)]
#[command(name = "rhumb", version, about = "Looks into this node's Rhumb agent")]
struct Cli {
    /// The agent's socket.
    #[arg(
        long,
        env = "RHUMB_AGENT_SOCKET",
        default_value = "/run/rhumb/agent.sock",
        global = true
    )]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the agent knows, and how far the kernel holds it.
    Status,
    /// Services and where they lead.
    Service {
        #[command(subcommand)]
        command: List,
    },
    /// Pods of this node.
    Endpoints,
    /// NetworkPolicies and the pods of this node that they select.
    Policy,
    /// Addresses of this node's pods, and how much of the pod CIDRs is left.
    Ipam,
    /// Drops as they happen, with the rule behind each.
    Drops,
    /// The kernel's tables as text: all, services, backends, endpoints, peers, policy, routes,
    /// counters, flows.
    Dump { what: String },
}

#[derive(Debug, Subcommand)]
enum List {
    List,
}

async fn connect(socket: PathBuf) -> Result<AgentClient<Channel>> {
    let shown = socket.display().to_string();
    // The name is not used: the connection is to the socket.
    let channel = Endpoint::from_static("http://agent")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
        .await
        .with_context(|| {
            format!("connecting to {shown}: does rhumb-agent run here, and are you root? (--socket names another)")
        })?;
    Ok(AgentClient::new(channel))
}

/// Columns, aligned.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width: Vec<usize> = (0..columns)
        .map(|c| {
            rows.iter()
                .filter_map(|r| r.get(c))
                .map(|t| t.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (text, width) in row.iter().zip(&width) {
            line.push_str(&format!("{text:width$}   "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn or_dash(items: &[String]) -> String {
    if items.is_empty() {
        "-".to_owned()
    } else {
        items.join(",")
    }
}

async fn run(cli: Cli) -> Result<()> {
    let mut agent = connect(cli.socket).await?;
    match cli.command {
        Command::Status => {
            let s = agent
                .get_status(api::GetStatusRequest {})
                .await?
                .into_inner();
            println!("node        {}", s.node);
            println!("agent       {} (map ABI {})", s.version, s.abi);
            let state = if !s.not_synced.is_empty() {
                format!("not synced: {}", s.not_synced.join(", "))
            } else if !s.last_error.is_empty() {
                s.last_error
            } else if s.applied == s.revision {
                "in step".to_owned()
            } else {
                "writing".to_owned()
            };
            println!("state       {state}");
            println!(
                "revision    {} known, {} in the kernel",
                s.revision, s.applied
            );
            println!(
                "services    {} frontends, {} backends",
                s.services, s.backends
            );
            println!(
                "pods        {} in the cluster, {} here",
                s.pods, s.endpoints
            );
            println!("policies    {}, {} rows", s.policies, s.policy_rows);
        }
        Command::Service {
            command: List::List,
        } => {
            let list = agent
                .list_services(api::ListServicesRequest {})
                .await?
                .into_inner();
            let mut rows = vec![heading(&[
                "NAMESPACE",
                "NAME",
                "ADDRESS",
                "PROTOCOL",
                "BACKENDS",
            ])];
            for f in list.frontends {
                rows.push(vec![
                    f.namespace,
                    f.name,
                    f.address,
                    f.protocol,
                    or_dash(&f.backends),
                ]);
            }
            print!("{}", table(&rows));
        }
        Command::Ipam => {
            let list = agent
                .list_addresses(api::ListAddressesRequest {})
                .await?
                .into_inner();
            let mut rows = vec![heading(&[
                "CIDR", "FOR PODS", "ATTACHED", "ADDING", "DELETING", "RESTING",
            ])];
            for c in list.cidrs {
                let counts = [c.attached, c.adding, c.deleting, c.resting];
                let counts = counts.map(|n| n.to_string());
                rows.push([vec![c.cidr, c.capacity], counts.to_vec()].concat());
            }
            println!("{}", table(&rows));
            let mut rows = vec![heading(&[
                "ADDRESSES",
                "NAMESPACE",
                "POD",
                "CONTAINER",
                "INTERFACE",
                "HOST SIDE",
                "STATE",
            ])];
            for a in list.addresses {
                rows.push(vec![
                    or_dash(&a.addresses),
                    a.namespace,
                    a.pod,
                    a.container_id.chars().take(12).collect(),
                    a.ifname,
                    a.host_ifname,
                    a.phase,
                ]);
            }
            print!("{}", table(&rows));
        }
        Command::Endpoints => {
            let list = agent
                .list_endpoints(api::ListEndpointsRequest {})
                .await?
                .into_inner();
            let mut rows = vec![heading(&[
                "NAMESPACE",
                "POD",
                "ADDRESSES",
                "CONTAINER",
                "INGRESS ISOLATED BY",
                "EGRESS ISOLATED BY",
            ])];
            for e in list.endpoints {
                let container: String = e.container_id.chars().take(12).collect();
                rows.push(vec![
                    e.namespace,
                    e.pod,
                    or_dash(&e.addresses),
                    container,
                    or_dash(&e.ingress),
                    or_dash(&e.egress),
                ]);
            }
            print!("{}", table(&rows));
        }
        Command::Policy => {
            let list = agent
                .list_policies(api::ListPoliciesRequest {})
                .await?
                .into_inner();
            let mut rows = vec![heading(&["NAMESPACE", "NAME", "ISOLATES", "PODS HERE"])];
            for p in list.policies {
                let isolates = match (p.ingress, p.egress) {
                    (true, true) => "ingress,egress",
                    (true, false) => "ingress",
                    (false, true) => "egress",
                    (false, false) => "-",
                };
                rows.push(vec![
                    p.namespace,
                    p.name,
                    isolates.to_owned(),
                    or_dash(&p.local_pods),
                ]);
            }
            print!("{}", table(&rows));
        }
        Command::Drops => {
            let mut drops = agent
                .watch_drops(api::WatchDropsRequest {})
                .await?
                .into_inner();
            while let Some(d) = drops.message().await? {
                if d.missed > 0 {
                    println!("({} more were missed)", d.missed);
                }
                let by = if d.by.is_empty() {
                    String::new()
                } else {
                    format!(" by {}", d.by)
                };
                println!(
                    "{} {} {} -> {} at {}, {} bytes{by}",
                    d.reason, d.protocol, d.src, d.dst, d.hook, d.len
                );
            }
        }
        Command::Dump { what } => {
            let text = agent
                .dump(api::DumpRequest { what })
                .await?
                .into_inner()
                .text;
            print!("{text}");
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rhumb: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let rows = vec![heading(&["A", "B"]), heading(&["long", "x"])];
        assert_eq!(table(&rows), "A      B\nlong   x\n");
    }
}
