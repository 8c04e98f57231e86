//! Who asks: a signature by an access key, or a token.

use cairn_api::ErrorCode;
use cairn_api::sign::{ALGORITHM, Authorization, SignatureError, SignedRequest, within_window};
use cairn_core::{Caller, Refusal};
use cairn_types::{ProjectId, UserId};

use crate::App;
use crate::error::{Failure, Result};
use crate::request::Request;

/// Who asks, proven.
pub(crate) struct Identified {
    pub(crate) user: UserId,
    /// The project that the token is scoped to; signatures carry none.
    scope: Option<ProjectId>,
    /// The signature, if that was the proof.
    signed: Option<Signed>,
}

/// A signature that was good.
pub(crate) struct Signed {
    /// Whose key made it.
    pub(crate) access_key: String,
    /// The digest of what was signed: the same for the same request sent again.
    pub(crate) digest: String,
}

/// Who asks, proven, in a project that they may work in.
pub(crate) struct Proven {
    pub(crate) caller: Caller,
    pub(crate) signed: Option<Signed>,
}

/// Proves who asks.
///
/// Errors: 401 `APIGW.0301`, whatever is wrong with the proof.
pub(crate) async fn identify(app: &App, request: &Request) -> Result<Identified> {
    let headers = &request.parts.headers;
    let twice = |name| headers.get_all(name).iter().nth(1).is_some();
    if twice("x-auth-token") || twice("authorization") {
        // Which one would count is anybody's guess.
        return Err(not_proven(&SignatureError::Malformed));
    }
    let Some(token) = request.header("x-auth-token") else {
        let header = request.header("authorization");
        let (user, signed) =
            signature(app, request, header.ok_or(Refusal::NotAuthenticated)?).await?;
        return Ok(Identified {
            user,
            scope: None,
            signed: Some(signed),
        });
    };
    let (user, scope) = app.service.user_of_token(token).await?;
    // Beside a token clients send anything for a signature; but one that is there must hold.
    let header = request.header("authorization");
    if let Some(header) = header.filter(|header| header.starts_with(ALGORITHM)) {
        let (signer, _) = signature(app, request, header).await?;
        if signer != user {
            return Err(Refusal::NotAuthenticated.into());
        }
    }
    Ok(Identified {
        user,
        scope,
        signed: None,
    })
}

/// Verifies the signature in a header `Authorization`.
async fn signature(app: &App, request: &Request, header: &str) -> Result<(UserId, Signed)> {
    let authorization = Authorization::parse(header).map_err(|error| not_proven(&error))?;
    let (user, secret) = app.service.secret_of(&authorization.access_key).await?;
    let secret = std::str::from_utf8(&secret).map_err(|_| Refusal::NotAuthenticated)?;
    let signed = SignedRequest {
        method: request.parts.method.as_str(),
        path: request.parts.uri.path(),
        query: request.query(),
        headers: &request.parts.headers,
        body: &request.body,
    };
    let signed_at = authorization
        .verify(&signed, secret)
        .map_err(|error| not_proven(&error))?;
    if !within_window(signed_at, app.clock.now()) {
        let why = "the time of signing is more than 15 minutes from the server's";
        return Err(Failure::code_with(ErrorCode::BadCredentials, why));
    }
    let digest = authorization.digest(&request.body);
    let access_key = authorization.access_key;
    Ok((user, Signed { access_key, digest }))
}

/// Proves who asks, and that they may work in the project of the path.
///
/// Errors: 401 as [`identify`]; 403 `APIGW.0302`, the same for a project that
/// the caller has no role in and one that does not exist.
pub(crate) async fn enter_project(app: &App, request: &Request) -> Result<Proven> {
    let identified = identify(app, request).await?;
    let project: ProjectId = request.path("project_id")?;
    if identified.scope.is_some_and(|scope| scope != project) {
        return Err(Refusal::NotAllowed.into());
    }
    enter(app, request, identified, project).await
}

async fn enter(
    app: &App,
    request: &Request,
    identified: Identified,
    project: ProjectId,
) -> Result<Proven> {
    let entered = app.service.enter(identified.user, project, &request.id);
    Ok(Proven {
        caller: entered.await?,
        signed: identified.signed,
    })
}

/// Proves who asks, and finds the project that they ask from where the path
/// names none: the token's, the one of `X-Project-Id`, or else their first.
///
/// Errors: as [`enter_project`]; 403 too for who has a role in no project.
pub(crate) async fn enter_home(app: &App, request: &Request) -> Result<Proven> {
    let identified = identify(app, request).await?;
    let named = request.header("x-project-id").map(str::parse).transpose();
    let named: Option<ProjectId> = named.map_err(|_| Failure::invalid("X-Project-Id"))?;
    let project = match identified.scope.or(named) {
        Some(project) => project,
        None => {
            let projects = app.service.projects_of(identified.user, None).await?;
            projects.first().ok_or(Refusal::NotAllowed)?.id
        }
    };
    enter(app, request, identified, project).await
}

fn not_proven(error: &SignatureError) -> Failure {
    Failure::code_with(ErrorCode::BadCredentials, error)
}
