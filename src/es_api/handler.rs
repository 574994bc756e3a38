//! Dispatches requests to the endpoints. Runs on the threads of the HTTP connections.

use std::borrow::Cow;
use std::time::Duration;

use super::api::{EsApi, RoutedRequest};
use super::endpoint::Endpoint;
use super::error::ApiError;
use super::parameters::Parameters;
use super::response::{self, JSON, TEXT};
use super::route::route;
use crate::http::basic_auth::{AuthError, CHALLENGE};
use crate::http::{GuardError, Handler, Method, Request, Response};
use crate::search::budget::{self, RequestBudget};

/// Longest time that a request works for its result.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

impl Handler for EsApi {
    /// Answers a request. `reject_early`, which the server calls before this, has authenticated the user.
    fn handle(&self, request: &Request) -> Response {
        let _scope = budget::enter(self.request_budget(request));
        self.open_states.sweep();
        let response = match Parameters::from_request(request) {
            Ok(parameters) => {
                let response = self.dispatch(request, &parameters);
                // As in Elasticsearch, `filter_path` does not hide an error.
                let (response, is_error) = match response {
                    Ok(response) => (response, false),
                    Err(error) => (self.error_response(&error), true),
                };
                response::apply_format(response, &parameters, is_error)
                    .unwrap_or_else(|error| self.error_response(&error.into()))
            }
            Err(error) => self.error_response(&error),
        };
        self.finish(request, response)
    }

    /// Checks host, origin, user, password and method before the body is read.
    fn reject_early(&self, request: &Request) -> Option<Response> {
        // A browser asks without a password.
        if let Some(response) = self.guard.answer_preflight(request) {
            return Some(response::with_product(response));
        }
        if let Err(error) = self.guard.check(request) {
            return Some(response::with_product(self.guard_error_response(request, error)));
        }
        if let Err(error) = self.users.check(request) {
            return Some(self.finish(request, self.auth_error_response(request, error)));
        }
        let Ok(route) = route(request.path()) else { return None };
        if let Some(reason) = self.rights.refuse(route.endpoint, request.method()) {
            let error = ApiError::new(403, "security_exception", reason);
            return Some(self.finish(request, self.error_response(&error)));
        }
        let methods = route.endpoint.methods();
        let is_allowed = methods.contains(&request.method());
        (!is_allowed).then(|| self.finish(request, method_not_allowed(request, methods)))
    }
}

impl EsApi {
    fn request_budget(&self, request: &Request) -> RequestBudget {
        let budget = RequestBudget::new(&self.memory, self.request_bytes_max, REQUEST_TIMEOUT);
        match request.client() {
            Some(client) => budget.with_client(Box::new(move || client.is_gone())),
            None => budget,
        }
    }

    fn dispatch(&self, request: &Request, parameters: &Parameters<'_>) -> Result<Response, ApiError> {
        let route = route(request.path())?;
        let endpoint = route.endpoint;
        let routed = &RoutedRequest { request, route, parameters };
        let reads = matches!(request.method(), Method::Get | Method::Head);
        let writes = matches!(request.method(), Method::Post | Method::Put);
        if let Some(admin_api) = endpoint.admin_api().filter(|_| reads)
            && let Some(response) = self.forward_to_cluster(admin_api, routed)?
        {
            return Ok(response);
        }
        if endpoint.is_kept_by_cluster()
            && let Some(response) = self.forward_as_is(routed)?
        {
            return Ok(response);
        }
        match endpoint {
            Endpoint::Info => self.info(routed),
            Endpoint::License => self.license(routed),
            Endpoint::LicenseStatus => self.license_status(routed),
            Endpoint::XpackInfo => self.xpack_info(routed),
            Endpoint::Nodes => self.nodes(routed),
            Endpoint::NodesStats => self.nodes_stats(routed),
            Endpoint::ClusterSettings => self.cluster_settings(routed),
            Endpoint::PendingTasks => self.pending_tasks(routed),
            Endpoint::Search => self.search(routed),
            Endpoint::MultiSearch => self.multi_search(routed),
            Endpoint::Scroll => self.scroll(routed),
            Endpoint::OpenPointInTime | Endpoint::ClosePointInTime => self.point_in_time(routed),
            Endpoint::Count => self.count(routed),
            Endpoint::Bulk => self.bulk(routed),
            Endpoint::Document | Endpoint::Source if reads => self.get_document(routed),
            Endpoint::New | Endpoint::Document | Endpoint::Create if writes => self.write_document(routed),
            Endpoint::Source => self.get_document(routed),
            Endpoint::Refresh => self.refresh(routed),
            Endpoint::Mapping if reads => self.mapping(routed),
            Endpoint::AllMappings => self.mapping(routed),
            Endpoint::Mapping => self.put_mapping(routed),
            Endpoint::Health => self.health(routed),
            Endpoint::MultiGet => self.multi_get(routed),
            Endpoint::Flush | Endpoint::ForceMerge | Endpoint::CacheClear => self.tidy(routed),
            Endpoint::FieldMapping => self.field_mapping(routed),
            Endpoint::FieldCaps => self.field_caps(routed),
            Endpoint::Settings => self.settings(routed),
            Endpoint::Stats => self.stats(routed),
            Endpoint::AliasList | Endpoint::AliasOfAll | Endpoint::Alias => self.alias(routed),
            Endpoint::AliasActions => self.alias_actions(routed),
            Endpoint::Template
            | Endpoint::TemplateList
            | Endpoint::IndexTemplate
            | Endpoint::IndexTemplateList
            | Endpoint::ComponentTemplate
            | Endpoint::ComponentTemplateList => self.templates(routed),
            Endpoint::Analyze => self.analyze(routed),
            Endpoint::ValidateQuery => self.validate_query(routed),
            Endpoint::LifecyclePolicy if reads => Err(ApiError::policy_missing(routed.route.id.as_deref())),
            Endpoint::Pipeline | Endpoint::PipelineList if reads => self.pipelines(routed),
            Endpoint::CatIndices => self.cat_indices(routed),
            Endpoint::CatHealth => self.cat_health(routed),
            Endpoint::CatNodes => self.cat_nodes(routed),
            Endpoint::CatMaster => self.cat_master(routed),
            Endpoint::CatCount => self.cat_count(routed),
            Endpoint::CatAliases => self.cat_aliases(routed),
            Endpoint::CatTemplates => self.cat_templates(routed),
            Endpoint::CatPlugins => self.cat_plugins(routed),
            Endpoint::Index if reads => self.index(routed),
            Endpoint::Index if writes => self.create_index(routed),
            _ => Err(unsupported(request)),
        }
    }

    fn error_response(&self, error: &ApiError) -> Response {
        match error.kind() {
            "circuit_breaking_exception" => self.metrics.http_rejected_memory.inc(),
            "task_cancelled_exception" => self.metrics.http_cancelled_total.inc(),
            _ if error.status() == 429 => self.metrics.http_rejected_store_full.inc(),
            _ => {}
        }
        response::json(error.status(), error)
    }

    /// Adds the headers of every response.
    fn finish(&self, request: &Request, response: Response) -> Response {
        self.guard.add_headers(request, response::with_product(response))
    }

    fn guard_error_response(&self, request: &Request, error: GuardError) -> Response {
        error.record(request.peer(), &self.metrics, &self.warnings);
        response::json(403, &ApiError::new(403, "security_exception", error.to_string()))
    }

    fn auth_error_response(&self, request: &Request, error: AuthError) -> Response {
        let reason = match error {
            AuthError::Busy => return self.error_response(&ApiError::rejected_execution(error.to_string())),
            AuthError::MissingCredentials => {
                format!("missing authentication credentials for REST request [{}]", request.path())
            }
            AuthError::HeaderTooLong | AuthError::WrongCredentials => error.to_string(),
        };
        self.metrics.http_rejected_unauthorized.inc();
        response::json(401, &ApiError::new(401, "security_exception", reason))
            .with_header("WWW-Authenticate", CHALLENGE)
    }
}

/// Returns the error for an endpoint that the service lacks for this method: nothing is deleted over HTTP, for example.
fn unsupported(request: &Request) -> ApiError {
    ApiError::not_supported(format_args!("{} [{}]", request.method().as_str(), request.path()))
}

/// Returns 405 in Elasticsearch's form, which differs from that of other errors, or 200 for OPTIONS.
fn method_not_allowed(request: &Request, methods: &[Method]) -> Response {
    let names: Vec<_> = methods.iter().map(|method| method.as_str()).collect();
    let response = if request.method() == Method::Options {
        Response::new(200, TEXT, "")
    } else {
        let (path, method) = (request_target(request), request.method().as_str());
        let allowed = names.join(", ");
        let error =
            format!("Incorrect HTTP method for uri [{path}] and method [{method}], allowed: [{allowed}]");
        Response::new(405, JSON, serde_json::json!({ "error": error, "status": 405 }).to_string())
    };
    response.with_header("Allow", names.join(","))
}

/// Returns path and query as they were sent.
fn request_target(request: &Request) -> Cow<'_, str> {
    match request.query() {
        "" => request.path().into(),
        query => format!("{}?{query}", request.path()).into(),
    }
}
