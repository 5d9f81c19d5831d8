package gateway

import (
	"sluice/gateway/h2"
	"sluice/gateway/upstream"
	"sluice/gateway/wire"
)

// outcome is one way in which an RPC can end, from the gateway's point of view.
type outcome uint8

const (
	served          outcome = iota // the backend's own status, whatever it is
	noHostname                     // no route serves the authority
	noRule                         // a route does, but none of its rules matches
	noBackend                      // the rule has no backend with weight
	unresolved                     // the rule's backend does not exist
	unusable                       // the backend's own files cannot be used
	noEndpoint                     // the backend has no endpoint left to try
	unreachable                    // every endpoint was tried in vain
	crowded                        // too many streams wait for a connection
	exhausted                      // every connection is at its limit of streams
	refused                        // REFUSED_STREAM, or above GOAWAY's last id, and no second try possible
	backendLost                    // the connection ended under the RPC
	backendReset                   // the backend reset the stream
	backendStalled                 // the backend did not take the request
	backendInvalid                 // the backend broke a rule of HTTP/2 or gRPC
	backendNoStatus                // the backend ended without a grpc-status
	backendHTTP                    // the backend answered in plain HTTP
	responseHeaders                // the backend's metadata is over our limit
	requestHeaders                 // the caller's metadata is
	badTimeout                     // grpc-timeout is malformed
	badPath                        // not /package.Service/Method
	badMetadata                    // a -bin value is not base64
	deadline                       // the caller's deadline has passed
	cancelled                      // the caller has gone, or reset the stream
	stalled                        // the caller did not take the response
	overloaded                     // memory for waiting messages had run out
	draining                       // the gateway is shutting down and the grace is over
	badRequest                     // the caller's message could not be translated
	badResponse                    // nor the backend's answer
	tooLarge                       // a message that was to be translated is over the limit
	unsupported                    // the caller wants what cannot be translated
	backendTimeout                 // the backend did not begin its answer in time
	badTarget                      // the path of a plain request is malformed, or means two things
	limited                        // the RPC is over a rate limit of its rule
	saturated                      // the backend has as many RPCs as it may
	shed                           // memory is short
	evicted                        // the endpoint is to be empty, or streams were to move to others
	idle                           // nothing was said on the stream for longer than its route lets it be silent
	aged                           // the stream is as old as its route lets it become, or its connection as it may be
	numOutcomes
)

// outcomes is the one place where an ending meets the outside world. Every message
// names the gateway, so that nobody looks for the fault in the backend.
var outcomes = [numOutcomes]struct {
	label   string    // of the metric, and of the log's "outcome"
	code    wire.Code // grpc-status
	message string    // grpc-message, unless there is more to say
	retry   bool      // safe to send to another endpoint: the backend never acted on it
	http    int       // status for callers of HTTP, where it says more than the code's own; else 0
	// blame is what the ending says about the endpoint, when it is not the backend's own
	// status that says it.
	blame upstream.Verdict
}{
	served:          {"served", wire.OK, "", false, 0, upstream.Neutral},
	noHostname:      {"no_hostname", wire.Unimplemented, "no route serves this authority", false, 404, upstream.Neutral},
	noRule:          {"no_rule", wire.Unimplemented, "no route matches this method", false, 404, upstream.Neutral},
	noBackend:       {"no_backend", wire.Unavailable, "the route has no backend", false, 0, upstream.Neutral},
	unresolved:      {"unresolved", wire.Unavailable, "the route's backend does not exist", false, 0, upstream.Neutral},
	unusable:        {"unusable", wire.Unavailable, "the backend's TLS files cannot be used", false, 0, upstream.Neutral},
	noEndpoint:      {"no_endpoint", wire.Unavailable, "the backend has no endpoint", false, 0, upstream.Neutral},
	unreachable:     {"unreachable", wire.Unavailable, "no endpoint of the backend can be reached", true, 0, upstream.Neutral},
	crowded:         {"crowded", wire.Unavailable, "too many streams wait for a connection to the backend", true, 0, upstream.Neutral},
	exhausted:       {"exhausted", wire.Unavailable, "every connection to the backend is at its limit of streams", true, 0, upstream.Neutral},
	refused:         {"refused", wire.Unavailable, "the backend refused the stream", true, 0, upstream.Neutral},
	backendLost:     {"backend_lost", wire.Unavailable, "the connection to the backend was lost", false, 0, upstream.Failure},
	backendReset:    {"backend_reset", wire.Internal, "the backend reset the stream", false, 502, upstream.Failure},
	backendStalled:  {"backend_stalled", wire.Unavailable, "the backend did not take the request", false, 0, upstream.Failure},
	backendInvalid:  {"backend_invalid", wire.Internal, "the backend broke the protocol", false, 502, upstream.Failure},
	backendNoStatus: {"backend_no_status", wire.Unknown, "the backend ended the stream without grpc-status", false, 502, upstream.Failure},
	backendHTTP:     {"backend_http", wire.Unknown, "the backend answered in plain HTTP", false, 502, upstream.Failure},
	responseHeaders: {"response_headers", wire.ResourceExhausted, "the backend's metadata is larger than the limit", false, 502, upstream.Neutral},
	requestHeaders:  {"request_headers", wire.ResourceExhausted, "the request's metadata is larger than the limit", false, 431, upstream.Neutral},
	badTimeout:      {"bad_timeout", wire.Internal, "malformed grpc-timeout", false, 0, upstream.Neutral},
	badPath:         {"bad_path", wire.Unimplemented, "malformed method name", false, 404, upstream.Neutral},
	badMetadata:     {"bad_metadata", wire.Internal, "malformed binary metadata", false, 0, upstream.Neutral},
	deadline:        {"deadline", wire.DeadlineExceeded, "the deadline has passed", false, 0, upstream.Neutral},
	cancelled:       {"cancelled", wire.Canceled, "the caller cancelled", false, 0, upstream.Neutral},
	stalled:         {"stalled", wire.Canceled, "the caller did not take the response", false, 0, upstream.Neutral},
	overloaded:      {"overloaded", wire.ResourceExhausted, "memory for waiting messages has run out", false, 503, upstream.Neutral},
	draining:        {"draining", wire.Unavailable, "the gateway is shutting down", true, 0, upstream.Neutral},
	badRequest:      {"bad_request", wire.InvalidArgument, "the request cannot be translated", false, 0, upstream.Neutral},
	badResponse:     {"bad_response", wire.Internal, "the backend's answer cannot be translated", false, 502, upstream.Neutral},
	tooLarge:        {"too_large", wire.ResourceExhausted, "a message is larger than the limit", false, 413, upstream.Neutral},
	unsupported:     {"unsupported", wire.Unimplemented, "this cannot be translated", false, 0, upstream.Neutral},
	backendTimeout:  {"backend_timeout", wire.DeadlineExceeded, "the backend did not begin its answer in time", false, 0, upstream.Failure},
	evicted:         {"evicted", wire.Unavailable, "the endpoint is being drained, or streams move: open it again", false, 0, upstream.Neutral},
	idle:            {"idle", wire.DeadlineExceeded, "nothing was said on the stream for too long", false, 0, upstream.Neutral},
	aged:            {"aged", wire.Unavailable, "the stream has reached its age: open it again", false, 0, upstream.Neutral},
	badTarget:       {"bad_target", wire.InvalidArgument, "the path is refused", false, 0, upstream.Neutral},
	limited:         {"limited", wire.ResourceExhausted, "the route's rate limit is reached", false, 429, upstream.Neutral},
	saturated:       {"saturated", wire.ResourceExhausted, "the backend has as many RPCs as it may", false, 503, upstream.Neutral},
	shed:            {"shed", wire.ResourceExhausted, "the gateway is short of memory", false, 503, upstream.Neutral},
}

func (o outcome) String() string { return outcomes[o].label }

// status is the outcome as callers are told of it.
func (o outcome) status() *wire.Status {
	return &wire.Status{Code: outcomes[o].code, Message: "sluice: " + outcomes[o].message, HTTP: outcomes[o].http, Gateway: true}
}

// outcomeOfTranslation names the ending of an RPC that could not be translated.
func outcomeOfTranslation(st *wire.Status) outcome {
	switch st.Code {
	case wire.ResourceExhausted:
		return tooLarge
	case wire.Unimplemented:
		return unsupported
	case wire.DeadlineExceeded:
		return deadline
	case wire.Canceled:
		return cancelled
	case wire.Internal, wire.Unknown, wire.DataLoss:
		return badResponse
	}
	return badRequest
}

// outcomeOf translates the end of a stream to a backend.
func outcomeOf(e h2.Ending) (outcome, wire.Code) {
	if e.Unprocessed {
		return refused, wire.Unavailable
	}
	switch e.How {
	case h2.PeerReset:
		return backendReset, wire.FromReset(uint32(e.Code))
	case h2.PeerGoneAway, h2.ConnectionLost:
		return backendLost, wire.Unavailable
	case h2.HeadersLarge:
		return responseHeaders, wire.ResourceExhausted
	case h2.Overloaded:
		return overloaded, wire.ResourceExhausted
	case h2.Stalled:
		return backendStalled, wire.Unavailable
	case h2.Evicted:
		return evicted, wire.Unavailable
	}
	return backendInvalid, wire.Internal
}

// outcomeOfCaller translates the end of a stream from a caller.
func outcomeOfCaller(e h2.Ending) outcome {
	switch e.How {
	case h2.Stalled:
		return stalled
	case h2.Overloaded:
		return overloaded
	case h2.HeadersLarge:
		return requestHeaders
	}
	return cancelled
}
