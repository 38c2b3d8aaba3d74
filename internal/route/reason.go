package route

// Reason is a stable code for an answer that Fairlead gave itself, in place of a backend. It appears in the access log, in the metrics and in the response
// header X-Fairlead-Reason. A code that was released is never renamed.
type Reason string

// The reasons. docs/reasons.md explains each for users.
const (
	NoRoute              Reason = "no-route"               // 404: no listener, host or rule for the request
	NoEndpoints          Reason = "no-endpoints"           // 503: the backend has no endpoint that could take the request
	NoBackend            Reason = "no-backend"             // 500 (routes), 503 (Ingress): the backend does not exist, or the rule has none
	RouteInvalid         Reason = "route-invalid"          // 500: the rule cannot be served as it is written
	BackendConnectFailed Reason = "backend-connect-failed" // 502: no connection to any endpoint could be made
	BackendReset         Reason = "backend-reset"          // 502: the connection to the backend broke before the response
	BackendProtocol      Reason = "backend-protocol"       // 502: the backend's answer was not valid HTTP or over a limit
	BackendTimeout       Reason = "backend-timeout"        // 504: the backend did not answer in time
	RequestTimeout       Reason = "request-timeout"        // 504: the rule's request timeout ran out; 408: the client was too slow
	ClientClosed         Reason = "client-closed"          // 499 in the log: the client left before the answer
	BadRequest           Reason = "bad-request"            // 400: the request is malformed
	BadBody              Reason = "bad-body"               // 400: the request's body is malformed
	BadHost              Reason = "bad-host"               // 400: Host is missing or malformed
	BadPath              Reason = "bad-path"               // 400: the path cannot be interpreted safely
	HeadersTooLarge      Reason = "headers-too-large"      // 431: more or larger headers than allowed
	TargetTooLong        Reason = "target-too-long"        // 414: the request target is longer than allowed
	BodyTooLarge         Reason = "body-too-large"         // 413
	MethodNotAllowed     Reason = "method-not-allowed"     // 405: CONNECT, TRACE
	Misdirected          Reason = "misdirected"            // 421: the TLS connection was made for another listener
	Overloaded           Reason = "overloaded"             // 503: a limit on connections or requests is reached
	EndpointsBusy        Reason = "endpoints-busy"         // 503: all endpoints have as many requests as they may
	QueueFull            Reason = "queue-full"             // 503: and as many wait for them as may
	QueueTimeout         Reason = "queue-timeout"          // 503: the request has waited for one of them in vain
	RetryBudget          Reason = "retry-budget"           // 503: the request should be sent again, and too many have been
	Redirected           Reason = "redirect"               // 3xx: a redirect filter answered
	Challenge            Reason = "acme-challenge"         // 200: a certificate authority's challenge was answered
	Preflight            Reason = "cors-preflight"         // 204: a CORS filter answered a preflight
	CORSDenied           Reason = "cors-denied"            // 403: a preflight for an origin that the CORS filter does not allow
	IdleTimeout          Reason = "idle-timeout"           // no status: nothing was sent on a connection for too long, in either direction
	Stopping             Reason = "stopping"               // no status: a connection was cut off because Fairlead ends
	AuthDenied           Reason = "auth-denied"            // 403 or what the authorization server says: it does not let the request pass
	AuthFailed           Reason = "auth-failed"            // 503: the authorization server cannot be asked
	Internal             Reason = "internal-error"         // 500: a fault of Fairlead itself
)
