//! Reports as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};

use super::{Report, ReportError};

const TEMPLATE: &str = include_str!("page.html");

/// The page.
pub fn page(report: &Report) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_template("page", TEMPLATE)?;
    Ok(environment
        .get_template("page")?
        .render(context! { report => Serde(report), version => env!("CARGO_PKG_VERSION") })?)
}
