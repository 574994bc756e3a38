//! Dispatches requests to the endpoints. Runs on the threads of the HTTP connections.

use std::borrow::Cow;

use super::api::{EsApi, RoutedRequest};
use super::error::ApiError;
use super::parameters::Parameters;
use super::response::{self, JSON, TEXT};
use super::route::{Endpoint, route};
use crate::http::basic_auth::{AuthError, CHALLENGE};
use crate::http::{Handler, Method, Request, Response};

impl Handler for EsApi {
    /// Answers a request. `reject_early`, which the server calls before this, has authenticated the user.
    fn handle(&self, request: &Request) -> Response {
        let response = match Parameters::from_request(request) {
            Ok(parameters) => {
                let response = self.dispatch(request, &parameters);
                let response = response.unwrap_or_else(|error| self.error_response(&error));
                response::apply_format(response, &parameters)
            }
            Err(error) => self.error_response(&error),
        };
        response::with_product(response)
    }

    /// Checks user, password and method before the body is read.
    fn reject_early(&self, request: &Request) -> Option<Response> {
        if let Err(error) = self.users.check(request) {
            return Some(response::with_product(self.auth_error_response(request, error)));
        }
        let Ok(route) = route(request.path()) else { return None };
        let methods = route.endpoint.methods();
        (!methods.contains(&request.method())).then(|| method_not_allowed(request, methods))
    }
}

impl EsApi {
    fn dispatch(&self, request: &Request, parameters: &Parameters<'_>) -> Result<Response, ApiError> {
        let route = route(request.path())?;
        let endpoint = route.endpoint;
        let routed = &RoutedRequest { request, route, parameters };
        let reads = matches!(request.method(), Method::Get | Method::Head);
        if let Some(admin_api) = endpoint.admin_api().filter(|_| reads)
            && let Some(response) = self.forward_to_cluster(admin_api, routed)?
        {
            return Ok(response);
        }
        match endpoint {
            Endpoint::Info => self.info(routed),
            Endpoint::Search => self.search(routed),
            Endpoint::Count => self.count(routed),
            Endpoint::Bulk => self.bulk(routed),
            Endpoint::Document | Endpoint::Source if reads => self.get_document(routed),
            Endpoint::New | Endpoint::Document | Endpoint::Create => self.write_document(routed),
            Endpoint::Source => self.get_document(routed),
            Endpoint::Refresh => self.refresh(routed),
            Endpoint::Mapping if reads => self.mapping(routed),
            Endpoint::Mapping => self.put_mapping(routed),
            Endpoint::Health => self.health(routed),
            Endpoint::CatIndices => self.cat_indices(routed),
            Endpoint::CatHealth => self.cat_health(routed),
            Endpoint::Index if reads => self.index(routed),
            Endpoint::Index => self.create_index(routed),
        }
    }

    fn error_response(&self, error: &ApiError) -> Response {
        if error.status() == 429 {
            self.metrics.http_rejected_store_full.inc();
        }
        response::json(error.status(), error)
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
    response::with_product(response).with_header("Allow", names.join(","))
}

/// Returns path and query as they were sent.
fn request_target(request: &Request) -> Cow<'_, str> {
    match request.query() {
        "" => request.path().into(),
        query => format!("{}?{query}", request.path()).into(),
    }
}
