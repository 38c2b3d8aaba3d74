package headscan

import (
	"net/http"

	"github.com/fairlead-io/fairlead/internal/route"
)

func bad(why string) *Fault {
	return &Fault{Status: http.StatusBadRequest, Reason: route.BadRequest, Why: why}
}

func badHost(why string) *Fault {
	return &Fault{Status: http.StatusBadRequest, Reason: route.BadHost, Why: why}
}

func badPath(why string) *Fault {
	return &Fault{Status: http.StatusBadRequest, Reason: route.BadPath, Why: why}
}

func badBody(why string) *Fault {
	return &Fault{Status: http.StatusBadRequest, Reason: route.BadBody, Why: why, InBody: true}
}

func other(status int, reason route.Reason, why string) *Fault {
	return &Fault{Status: status, Reason: reason, Why: why}
}

// The faults of the request line.
var (
	faultLeadingCRLF = bad("empty line before the request line")
	faultMethod      = bad("method is not a token")
	faultMethodLong  = bad("method is too long")
	faultConnect     = other(http.StatusMethodNotAllowed, route.MethodNotAllowed, "method CONNECT")
	faultPreface     = bad("HTTP/2 preface on a connection that speaks HTTP/1")
	faultTargetEmpty = bad("request target is empty")
	faultTargetByte  = bad("request target contains a control character, or the version is missing")
	faultTarget      = other(http.StatusRequestURITooLong, route.TargetTooLong, "request target is too long")
	faultFragment    = badPath("request target contains a fragment")
	faultBackslash   = badPath("path contains a backslash")
	faultEscape      = badPath("path contains a percent sign without two hexadecimal digits")
	faultTargetForm  = bad("request target is neither a path nor an http URL")
	faultStar        = bad("request target * with a method other than OPTIONS")
	faultUserinfo    = badHost("request target contains user information")
	faultAuthority   = badHost("host in the request target is malformed")
	faultVersion     = bad("HTTP version is malformed")
	faultVersionNo   = other(http.StatusHTTPVersionNotSupported, route.BadRequest, "HTTP version is not 1.0 or 1.1")
)

// The faults of headers.
var (
	faultBareLF        = bad("line ends in LF without CR")
	faultBareCR        = bad("CR without LF")
	faultFold          = bad("header is folded over several lines")
	faultName          = bad("header name is not a token followed by a colon")
	faultValue         = bad("header value contains a control character")
	faultHeadSize      = other(http.StatusRequestHeaderFieldsTooLarge, route.HeadersTooLarge, "request line and headers are too large")
	faultHeaders       = other(http.StatusRequestHeaderFieldsTooLarge, route.HeadersTooLarge, "too many headers")
	faultHostMissing   = badHost("Host is missing")
	faultHostTwice     = badHost("Host occurs more than once")
	faultHost          = badHost("Host is malformed")
	faultHostMismatch  = badHost("Host differs from the host in the request target")
	faultLength        = bad("Content-Length is not a number")
	faultLengthTwice   = bad("Content-Length occurs more than once")
	faultCoding        = other(http.StatusNotImplemented, route.BadRequest, "Transfer-Encoding is not chunked")
	faultCodingTwice   = bad("Transfer-Encoding occurs more than once")
	faultCodingLength  = bad("Transfer-Encoding and Content-Length are both present")
	faultCodingVersion = bad("Transfer-Encoding in HTTP/1.0")
	faultTrailerName   = bad("Trailer announces a field that cannot be a trailer, or is too long")
	faultExpect        = other(http.StatusExpectationFailed, route.BadRequest, "Expect is not 100-continue")
)

// The faults of chunked bodies.
var (
	faultChunkSize     = badBody("chunk size is not a hexadecimal number")
	faultChunkTooLarge = badBody("chunk size is too large")
	faultChunkExt      = badBody("chunk extension contains a control character")
	faultChunkLine     = badBody("chunk size line is too long")
	faultChunkExcess   = badBody("chunks are mostly overhead")
	faultChunkLF       = badBody("chunk line ends in LF without CR")
	faultChunkCR       = badBody("CR without LF in a chunk line")
	faultChunkEnd      = badBody("chunk data is not followed by CR LF")
	faultTrailer       = badBody("trailer is malformed")
	faultTrailerFold   = badBody("trailer is folded over several lines")
	faultTrailerSize   = badBody("trailers are too large")
)
