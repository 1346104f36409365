//! A version that nobody deployed passes its cases before it writes the first row of a table.

use std::path::Path;

use crate::harness::{Daemon, Project, expected, root, rows};

const NOT_PASSED: &str = "must pass its cases before it writes the table, and ";

/// The products, or the same with another category: then a case fails in each plugin that has them.
fn products(right: bool) -> String {
    let csv = std::fs::read_to_string(root().join("data/reference/products.csv")).unwrap();
    let wrong = |line: &str| format!("{},wrong,x\n", line.split(',').next().unwrap());
    let mut lines = csv.lines();
    let header = lines.next().unwrap();
    if right { csv.clone() } else { format!("{header}\n{}", lines.map(wrong).collect::<String>()) }
}

fn write_products(folder: &Path, right: bool) {
    std::fs::write(folder.join("products.csv"), products(right)).unwrap();
}

#[test]
fn first_version_passes_its_cases_or_its_table_waits() {
    let project = Project::new("first-version", "interval = \"100ms\"");
    let folder = project.folder.path();
    let shipped = format!("{}/data/reference/products.csv", root().display());
    project.replace_in_pipeline(&shipped, "products.csv");
    write_products(folder, false);
    project.generate(&["--count", "300", "--seed", "5"]);
    let errors = project.silverd_fails(&["run", "--drain"], 1);
    assert!(errors.contains(NOT_PASSED) && errors.contains("`silverd plugin test "), "{errors}");
    let has_none = || !project.has_table("add_to_cart") && !project.has_table("order_placed");
    assert!(has_none() && !rows(&project.path("page_view")).is_empty());

    let mut daemon = Daemon::start(&project);
    daemon.until_logged(NOT_PASSED, 2);
    project.generate(&["--count", "300", "--seed", "6"]);
    daemon.until("all events in bronze", |_| rows(&project.path("bronze")).len() == 600);
    assert!(has_none());
    // The worker tries it again.
    write_products(folder, true);
    daemon.until("the tables", |_| project.has_table("add_to_cart") && project.has_table("order_placed"));

    // Nor does an edit add a table whose plugin fails.
    std::fs::write(folder.join("wrong.csv"), products(false)).unwrap();
    let text = project.pipeline();
    project.append_to_pipeline(&format!(
        "[silver.carts]\nplugin = \"{}/plugins/add_to_cart\"\nevent_time = \"ts\"\n\
         match = {{ field = \"event_type\", equals = \"add_to_cart\" }}\nreference = {{ products = \"wrong.csv\" }}",
        root().display()
    ));
    daemon.until_logged("nothing was changed: the previous pipeline keeps running", 1);
    let log = daemon.log();
    assert!(log.contains("[silver.carts] ") && log.contains(" cases failed"), "{log}");
    project.write_pipeline(&text);
    daemon.stop();
    project.silverd(&["run", "--drain"]);
    expected::check(&project);

    // The version that wrote last is gone, and the build has other reference data now.
    std::fs::remove_dir_all(folder.join("data/.silverd/plugins")).unwrap();
    write_products(folder, false);
    let mut daemon = Daemon::start(&project);
    daemon.until_logged(NOT_PASSED, 2);
    daemon.kill();
    write_products(folder, true);
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
}
