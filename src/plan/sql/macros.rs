//! The project's own functions, `functions/*.sql`: `CREATE FUNCTION age_band(age INT) RETURNS VARCHAR RETURN CASE … END`.
//!
//! A call is replaced by the function's expression before anything else looks at the query. Arguments and result are cast
//! to the declared types.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use datafusion::sql::sqlparser::ast::{
    CastKind, CreateFunction, CreateFunctionBody, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, FunctionReturnType, Query, Spanned, Statement, VisitMut, VisitorMut, visit_expressions,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use crate::diagnostic::Diagnostic;
use crate::plan::codes;
use crate::plan::sql::dialect::Bound;
use crate::plan::sql::text::SqlText;
use crate::plan::sql::times;
use crate::plan::sql::views::{self, Next, Reads};

/// The longest text of a function with all that it calls, and of a query with its functions.
const LONGEST: usize = 20_000;
const LONGEST_QUERY: usize = 1_000_000;

/// The functions of a project by their names, in small letters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Macros {
    functions: BTreeMap<String, Macro>,
    /// Those whose own files have errors, and these.
    broken: BTreeMap<String, PathBuf>,
}

#[derive(Debug, Clone)]
struct Macro {
    file: PathBuf,
    /// Where what is wrong in it is told.
    span: Range<usize>,
    parameters: Vec<(String, DataType)>,
    returns: DataType,
    body: Expr,
}

impl Macros {
    /// Out of the files below `functions/`, with what is wrong in them. A file is one function of its own name.
    pub(crate) fn new(files: &BTreeMap<PathBuf, String>) -> (Macros, Vec<Diagnostic>) {
        let mut macros = Macros::default();
        let mut problems = Vec::new();
        for (file, text) in files {
            match read(file, text) {
                Ok((name, function)) => drop(macros.functions.insert(name, function)),
                Err(problem) => problems.push(problem),
            }
        }
        // Each after those that it calls, whose bodies hold no calls any more.
        let calls = macros.functions.iter().map(|(name, function)| (name.clone(), macros.called_in(&function.body)));
        let calls: Reads = calls.collect();
        for next in views::in_order(&calls) {
            let name = match next {
                Next::View(name) => name,
                Next::Circle(circle) => {
                    let message =
                        format!("functions call each other in a circle: {} → {}", circle.join(" → "), circle[0]);
                    let Macro { file, span, .. } = &macros.functions[&circle[0]];
                    let problem = Diagnostic::error(codes::FUNCTION, file, Some(span.clone()), message);
                    problems.push(problem.help("let one of them call no other"));
                    circle.iter().for_each(|name| drop(macros.functions.remove(name)));
                    continue;
                }
            };
            let Some(mut function) = macros.functions.remove(&name) else { continue };
            let text = SqlText::new(&function.file, "");
            let mut inline = Inline { text: &text, macros: &macros, problem: None };
            let _ = VisitMut::visit(&mut function.body, &mut inline);
            let is_long = function.body.to_string().len() > LONGEST;
            let too_long = || text.error(codes::FUNCTION, 0..0, format!("`{name}` is too long with all that it calls"));
            match inline.problem.take().or_else(|| is_long.then(too_long)) {
                Some(problem) => problems.push(Diagnostic { span: Some(function.span.clone()), ..problem }),
                None => drop(macros.functions.insert(name, function)),
            }
        }
        problems.iter().for_each(|problem| macros.set_broken(&problem.file));
        (macros, problems)
    }

    /// A function is called no more whose file has errors.
    pub(crate) fn set_broken(&mut self, file: &Path) {
        let name = named_by(file);
        self.functions.remove(&name);
        self.broken.insert(name, file.to_owned());
    }

    /// The functions that an expression calls.
    fn called_in(&self, body: &Expr) -> BTreeMap<String, Range<usize>> {
        let mut called = BTreeMap::new();
        let _ = visit_expressions(body, |expr| {
            if let Expr::Function(call) = expr {
                let name = call.name.to_string().to_lowercase();
                if self.functions.contains_key(&name) {
                    called.insert(name, 0..0);
                }
            }
            ControlFlow::<()>::Continue(())
        });
        called
    }

    /// Replaces the calls in a query.
    pub(crate) fn inline(&self, text: &SqlText<'_>, query: &mut Query) -> Result<(), Diagnostic> {
        if self.functions.is_empty() && self.broken.is_empty() {
            return Ok(());
        }
        let before = query.to_string().len();
        let mut inline = Inline { text, macros: self, problem: None };
        let _ = VisitMut::visit(query, &mut inline);
        if let Some(problem) = inline.problem {
            return Err(problem);
        }
        if query.to_string().len() > before.max(LONGEST_QUERY) {
            let message = "the query is too long with the functions that it calls";
            return Err(text.error(codes::FUNCTION, text.first_word(), message).help("name parts of it in WITH"));
        }
        Ok(())
    }

    /// For every function its file, a place in it, and a query that calls it, so that what is wrong in one is told there.
    pub(crate) fn trials(&self) -> impl Iterator<Item = (&Path, &Range<usize>, String)> {
        self.functions.iter().map(|(name, function)| {
            let nulls: Vec<String> =
                function.parameters.iter().map(|(_, data_type)| format!("CAST(NULL AS {data_type})")).collect();
            (function.file.as_path(), &function.span, format!("SELECT {name}({}) AS value", nulls.join(", ")))
        })
    }
}

/// What the parser says, as it is said of queries.
fn in_words(error: &str) -> String {
    let error = error.trim_start_matches("sql parser error: ");
    match error.strip_prefix("Expected: ").and_then(|rest| rest.split_once(", found: ")) {
        Some((expected, "EOF")) => format!("the function ends too early: expected {expected}"),
        Some((expected, found)) => format!("expected {expected}, found `{found}`"),
        None => error.to_string(),
    }
}

/// What the function of a file is called.
fn named_by(file: &Path) -> String {
    file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().to_lowercase())
}

/// The function in a file.
fn read(file: &Path, text: &str) -> Result<(String, Macro), Diagnostic> {
    const FORM: &str = "write CREATE FUNCTION age_band(age INT) RETURNS VARCHAR RETURN CASE … END";
    let sql = SqlText::new(file, text);
    let problem = |message: String| sql.error(codes::FUNCTION, sql.first_word(), message).help(FORM);
    // Without places: those of another file would mean nothing in a tag's.
    let tokens = Tokenizer::new(&Bound::default(), sql.text()).tokenize();
    let tokens = tokens.map_err(|error| problem(error.to_string()))?;
    let parsed = Parser::new(&Bound::default()).with_tokens(tokens).parse_statements();
    let mut statements = parsed.map_err(|error| problem(in_words(&error.to_string())))?;
    times::write_out(&mut statements);
    let [Statement::CreateFunction(CreateFunction { name, args, return_type, function_body, .. })] =
        statements.as_slice()
    else {
        return Err(problem("a file below functions/ is one CREATE FUNCTION".to_string()));
    };
    let name = name.to_string().to_lowercase();
    let stem = named_by(file);
    if name != stem {
        return Err(problem(format!("the function `{name}` is in a file named `{stem}.sql`")));
    }
    let (Some(CreateFunctionBody::Return(body)), Some(FunctionReturnType::DataType(returns))) =
        (function_body, return_type)
    else {
        return Err(problem(format!("the function `{name}` has no RETURNS type or no RETURN expression")));
    };
    let parameters = args.iter().flatten().map(|arg| match &arg.name {
        Some(parameter) if arg.default_expr.is_none() => Ok((parameter.value.to_lowercase(), arg.data_type.clone())),
        _ => Err(problem(format!("a parameter of `{name}` has no name, or a default"))),
    });
    let parameters = parameters.collect::<Result<Vec<_>, _>>()?;
    let span = sql.find_word(&["return"]).unwrap_or_else(|| sql.first_word());
    Ok((name, Macro { file: file.to_owned(), span, parameters, returns: returns.clone(), body: body.clone() }))
}

struct Inline<'a> {
    text: &'a SqlText<'a>,
    macros: &'a Macros,
    problem: Option<Diagnostic>,
}

impl VisitorMut for Inline<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let name = call.name.to_string().to_lowercase();
        if let Some(file) = self.macros.broken.get(&name) {
            let message = format!("function `{name}` cannot be called: its own file has errors");
            let problem = self.text.error(codes::BROKEN_VIEW, self.text.span(call.name.span()), message);
            self.problem = Some(problem.follows(file).help(format!("mend {}", file.display())));
            return ControlFlow::Break(());
        }
        let Some(function) = self.macros.functions.get(&name) else { return ControlFlow::Continue(()) };
        match function.called(call) {
            Ok(value) => {
                *expr = value;
                ControlFlow::Continue(())
            }
            Err(message) => {
                let span = self.text.span(call.name.span());
                let help = format!("see {}", function.file.display());
                self.problem = Some(self.text.error(codes::FUNCTION, span, message).help(help));
                ControlFlow::Break(())
            }
        }
    }
}

impl Macro {
    fn called(&self, call: &Function) -> Result<Expr, String> {
        let plain = call.over.is_none() && call.filter.is_none() && call.within_group.is_empty();
        let FunctionArguments::List(list) = &call.args else {
            return Err(format!("`{}` is called without arguments in brackets", call.name));
        };
        let arguments: Option<Vec<Expr>> = list
            .args
            .iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            })
            .collect();
        let (true, None, Some(arguments)) = (plain, list.duplicate_treatment, arguments) else {
            return Err(format!("`{}` takes plain arguments, without names, OVER, FILTER or DISTINCT", call.name));
        };
        if arguments.len() != self.parameters.len() {
            let wanted = match self.parameters.len() {
                1 => "1 argument".to_string(),
                wanted => format!("{wanted} arguments"),
            };
            return Err(format!("`{}` takes {wanted}, not {}", call.name, arguments.len()));
        }
        let mut body = self.body.clone();
        let _ = VisitMut::visit(&mut body, &mut Fill { function: self, arguments });
        Ok(cast(body, &self.returns))
    }
}

/// Puts arguments in the place of parameters.
struct Fill<'a> {
    function: &'a Macro,
    arguments: Vec<Expr>,
}

impl VisitorMut for Fill<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && let Some(index) =
                self.function.parameters.iter().position(|(name, _)| ident.value.eq_ignore_ascii_case(name))
        {
            *expr = cast(self.arguments[index].clone(), &self.function.parameters[index].1);
        }
        ControlFlow::Continue(())
    }
}

fn cast(expr: Expr, data_type: &DataType) -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Nested(Box::new(expr))),
        data_type: data_type.clone(),
        array: false,
        format: None,
    }
}
