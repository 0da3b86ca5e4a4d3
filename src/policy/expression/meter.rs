//! Counts the steps that an expression really takes, to compare with the [estimate](super::cost).

use super::compiled::Compiled;
use super::facts::{Scope, facts_of};
use super::shape::Shape;
use super::syntax::children_mut;
use super::{cost, pattern};
use crate::api::Pki;
use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};
use cel::common::types::DYN_TYPE;
use cel::common::value::CowVal;
use cel::{Env, ExecutionError};
use std::cell::Cell;
use std::sync::{Arc, LazyLock};

/// The name of a function that no author can write.
const STEP: &str = "@step";

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

static METERED: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = pattern::environment();
    env.add_overload(STEP, "step", vec![DYN_TYPE], step)
        .expect("the name is not the library's");
    Arc::new(env)
});

/// The steps of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Estimate for the largest Pki.
    pub most: u64,
    /// Estimate for this Pki.
    pub estimated: u64,
    /// Calls and loops that were evaluated for this Pki.
    pub taken: u64,
}

/// Evaluates an expression on a Pki, and counts its steps. `None` for one that no policy may have.
pub fn measure(source: &str, pki: &Pki) -> Option<Steps> {
    let reading = Compiled::of(source);
    let compiled = (*reading).as_ref().ok()?;
    let known = facts_of(pki);
    let mut metered = compiled.expression.clone();
    meter(&mut metered);
    TAKEN.set(0);
    // A rule that fails has taken steps as well.
    let _ = Scope::in_environment(&METERED, &known).resolve(&metered, compiled);
    Some(Steps {
        most: compiled.steps,
        estimated: cost::steps(&compiled.expression, &Shape::of(&known)),
        taken: TAKEN.get(),
    })
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the interpreter calls it as a function that may fail"
)]
fn step<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    TAKEN.set(TAKEN.get() + 1);
    Ok(arguments.remove(0))
}

/// Wraps each call and loop in a call that counts, but the internal parts of loops, whose form the
/// interpreter recognizes.
fn meter(expression: &mut IdedExpr) {
    if let Expr::Comprehension(each) = &mut expression.expr {
        meter(&mut each.iter_range);
        if let Expr::Call(call) = &mut each.loop_step.expr {
            let written = match call.func_name.as_str() {
                operators::LOGICAL_AND | operators::LOGICAL_OR => call.args.get_mut(1),
                _ => call.args.first_mut(),
            };
            written.into_iter().for_each(meter);
        }
    } else {
        children_mut(expression).into_iter().for_each(meter);
    }
    if matches!(&expression.expr, Expr::Call(_) | Expr::Comprehension(_)) {
        let counted = CallExpr {
            func_name: STEP.into(),
            target: None,
            args: vec![std::mem::take(expression)],
        };
        expression.expr = Expr::Call(counted);
    }
}
