//! Ring 3: the plugin's binary as a container runtime drives it, on the real kernel. Needs root.

mod ring3 {
    mod agent;
    mod input;
    mod kill;
    mod lost;
    mod node;
    mod parallel;
    mod repair;
    mod verbs;
}
