//! Estimates the steps of an expression before it is evaluated; a step takes some tens of
//! nanoseconds. As in Kubernetes, a loop costs its elements times its body, and a function the
//! length of the text that it reads.

use super::pattern::{MATCHES, MAX_SUBJECT_BYTES};
use super::shape::Shape;
use super::syntax::{is_internal, of_entry};
use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, MapExpr, StructExpr, operators,
};

/// Number of bytes that are searched in one step.
const BYTES_A_STEP: u64 = 16;
/// Steps to look up a function and to pass its arguments.
const CALL: u64 = 4;
/// Steps of one pass of a loop besides its body.
const PASS: u64 = 4;
/// Length of the longest number as text.
const MAX_NUMBER_BYTES: u64 = 400;

/// Estimates the steps of an expression for facts of this shape.
pub(super) fn steps(expression: &IdedExpr, facts: &Shape) -> u64 {
    let variables = Vec::new();
    Estimate { facts, variables }.of(expression).0
}

/// Steps, and the shape of the result.
type Cost = (u64, Shape);

struct Estimate<'a> {
    facts: &'a Shape,
    /// The variables of the loops around.
    variables: Vec<(&'a str, Shape)>,
}

impl<'a> Estimate<'a> {
    fn of(&mut self, expression: &'a IdedExpr) -> Cost {
        match &expression.expr {
            Expr::Unspecified => (1, Shape::default()),
            Expr::Literal(literal) => (1, of_literal(literal)),
            Expr::Ident(name) => (1, self.variable(name)),
            Expr::Select(select) => {
                let (steps, operand) = self.of(&select.operand);
                let field = operand.field(&select.field);
                let copied = if is_path(&select.operand) {
                    0
                } else {
                    field.weight()
                };
                let shape = if select.test { Shape::default() } else { field };
                (sum([steps, 3, copied]), shape)
            }
            Expr::Call(call) => self.of_call(call),
            Expr::List(list) => self.of_elements(&list.elements),
            Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
                self.of_entries(entries.iter().map(|entry| of_entry(&entry.expr)))
            }
            Expr::Comprehension(each) => self.of_loop(each),
        }
    }

    fn variable(&self, name: &str) -> Shape {
        let mut variables = self.variables.iter().rev();
        let variable = variables.find(|(known, _)| *known == name);
        variable.map_or_else(|| self.facts.field(name), |(_, shape)| shape.clone())
    }

    fn of_elements(&mut self, elements: &'a [IdedExpr]) -> Cost {
        let (mut steps, mut largest) = (1, Shape::default());
        for element in elements {
            let (cost, shape) = self.of(element);
            steps = sum([steps, cost, shape.weight()]);
            largest = largest.or(&shape);
        }
        (steps, Shape::list(elements.len() as u64, largest))
    }

    fn of_entries(&mut self, entries: impl Iterator<Item = Vec<&'a IdedExpr>>) -> Cost {
        let (mut steps, mut count, mut key_bytes) = (1, 0, 0);
        let mut largest = Shape::default();
        for entry in entries {
            count += 1;
            for (index, part) in entry.iter().enumerate() {
                let (cost, shape) = self.of(part);
                steps = sum([steps, cost, shape.weight(), 2]);
                if index == 0 {
                    key_bytes = key_bytes.max(shape.bytes);
                }
                largest = largest.or(&shape);
            }
        }
        (steps, Shape::map(count, key_bytes, largest))
    }

    fn of_loop(&mut self, each: &'a ComprehensionExpr) -> Cost {
        let (range_steps, range) = self.of(&each.iter_range);
        let (init_steps, init) = self.of(&each.accu_init);
        let item = range.item();
        let pass = PASS + item.weight();
        // The result of filter() is at most as large as its input.
        let collects = matches!(&each.accu_init.expr, Expr::List(_));
        let result = if collects {
            Shape::list(range.count, item.clone())
        } else {
            init
        };
        let outer = self.variables.len();
        self.variables.push((&each.accu_var, result));
        self.variables.push((&each.iter_var, item));
        let (condition, _) = self.of(&each.loop_cond);
        let (step, _) = self.of(&each.loop_step);
        let (result_steps, result) = self.of(&each.result);
        self.variables.truncate(outer);
        let passes = range.count.saturating_mul(sum([pass, condition, step]));
        let steps = sum([range_steps, init_steps, passes, condition, result_steps, 2]);
        (steps, result)
    }

    fn of_call(&mut self, call: &'a CallExpr) -> Cost {
        let arguments = call.target.as_deref().into_iter().chain(&call.args);
        let (mut steps, mut shapes) = (Vec::new(), Vec::new());
        for argument in arguments {
            let (cost, shape) = self.of(argument);
            steps.push(cost);
            shapes.push(shape);
        }
        if call.func_name == operators::CONDITIONAL
            && let ([condition, yes, no], [_, one, other]) = (steps.as_slice(), shapes.as_slice())
        {
            return (sum([1, *condition, *yes.max(no)]), one.clone().or(other));
        }
        let (own, shape) = of_function(call, &shapes);
        (sum(steps.into_iter().chain([own])), shape)
    }
}

/// Estimates a function without its arguments. An unknown function may copy all of them.
fn of_function(call: &CallExpr, shapes: &[Shape]) -> Cost {
    let weights = || sum(shapes.iter().map(Shape::weight));
    let all = || shapes.iter().fold(Shape::default(), Shape::or);
    let nothing = Shape::default;
    match (call.func_name.as_str(), shapes) {
        (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::NOT_STRICTLY_FALSE, _) => {
            (1, nothing())
        }
        (operators::LOGICAL_NOT, _) => (3, nothing()),
        (operators::EQUALS | operators::NOT_EQUALS, [one, other]) => {
            (1 + 2 * one.weight().min(other.weight()), nothing())
        }
        (operators::IN, [one, other]) => (in_steps(one, other), nothing()),
        (operators::INDEX, [_, index]) => {
            let indexed = &call.args[0];
            let field = match literal(&call.args[1]) {
                Some(name) => shapes[0].field(name),
                None => shapes[0].any(),
            };
            let copied = if is_path(indexed) { 0 } else { field.weight() };
            (sum([2, index.weight(), copied]), field)
        }
        // Loops collect their result in place.
        (operators::ADD, [_, added]) if is_internal(call.args.first()) => {
            (2 + added.weight(), all())
        }
        (operators::ADD, [one, other]) => (2 + weights(), one.clone().and(other)),
        ("size", [of, ..]) => (CALL + of.bytes / BYTES_A_STEP, nothing()),
        ("startsWith" | "endsWith", [one, other]) => {
            (CALL + one.weight().min(other.weight()), nothing())
        }
        ("contains", [one, other]) => {
            let bytes = one.bytes.saturating_add(other.bytes);
            (CALL + bytes / BYTES_A_STEP, nothing())
        }
        (MATCHES, [subject, ..]) => {
            let bytes = subject.bytes.min(MAX_SUBJECT_BYTES as u64);
            (CALL + 2 + bytes / BYTES_A_STEP, nothing())
        }
        ("string", _) => (CALL + weights(), all().or(&Shape::text(MAX_NUMBER_BYTES))),
        // A comparison of different types copies both sides into its error.
        _ => (CALL + 2 * weights(), all()),
    }
}

fn in_steps(one: &Shape, other: &Shape) -> u64 {
    let compared = 1 + one.weight().min(other.item().weight());
    let found = sum([2, one.weight()]);
    found.saturating_add(other.count.saturating_mul(compared))
}

fn of_literal(literal: &LiteralValue) -> Shape {
    match literal {
        LiteralValue::String(text) => Shape::text(text.inner().len() as u64),
        LiteralValue::Bytes(bytes) => Shape::text(bytes.inner().len() as u64),
        _ => Shape::default(),
    }
}

fn literal(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Whether an expression is a path, as in `a.b[c]`, whose value is borrowed and not copied.
fn is_path(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Ident(_) => true,
        Expr::Select(select) => is_path(&select.operand),
        Expr::Call(call) => call.func_name == operators::INDEX && is_path(&call.args[0]),
        _ => false,
    }
}

fn sum(steps: impl IntoIterator<Item = u64>) -> u64 {
    steps.into_iter().fold(0, u64::saturating_add)
}
