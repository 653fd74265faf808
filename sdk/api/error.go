package api

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// Code tells programs what went wrong. The list is closed: new codes come with a new
// minor version, and none changes its meaning or its HTTP status.
type Code string

// The codes.
const (
	CodeInvalidRequest     Code = "invalid_request"      // 400 not readable: bad JSON, bad query
	CodeUnknownField       Code = "unknown_field"        // 400 a field that does not exist
	CodeUnknownParameter   Code = "unknown_parameter"    // 400 a query parameter that does not exist here
	CodeUnauthorized       Code = "unauthorized"         // 401 no or wrong token
	CodeForbidden          Code = "forbidden"            // 403 known, but not allowed
	CodeNotFound           Code = "not_found"            // 404 no such path
	CodeServiceNotFound    Code = "service_not_found"    // 404
	CodeInstanceNotFound   Code = "instance_not_found"   // 404 register it (again)
	CodeRegionNotFound     Code = "region_not_found"     // 404
	CodeKeyNotFound        Code = "key_not_found"        // 404 no such key in /v1/kv
	CodePolicyNotFound     Code = "policy_not_found"     // 404 the region has no policy of its own for it
	CodeMethodNotAllowed   Code = "method_not_allowed"   // 405
	CodeStaleIncarnation   Code = "stale_incarnation"    // 409 a newer incarnation of this id exists
	CodeConflict           Code = "conflict"             // 409 changed meanwhile, or peers disagree
	CodeBodyTooLarge       Code = "body_too_large"       // 413
	CodeUnsupportedMedia   Code = "unsupported_media"    // 415 send application/json
	CodeInvalidField       Code = "invalid_field"        // 422 understood, but a value is not allowed
	CodeUnsupported        Code = "unsupported"          // 422 not in this version
	CodeTooManyRequests    Code = "too_many_requests"    // 429 see Retry-After
	CodeInternal           Code = "internal"             // 500
	CodeUnavailable        Code = "unavailable"          // 503 the store does not answer; reads go on
	CodeShuttingDown       Code = "shutting_down"        // 503 ask another node
	CodeRevisionNotReached Code = "revision_not_reached" // 504 min_revision did not arrive in time
	CodeTimeout            Code = "timeout"              // 504
	CodeStorageFull        Code = "storage_full"         // 507
)

var statusOfCode = map[Code]int{
	CodeInvalidRequest: 400, CodeUnknownField: 400, CodeUnknownParameter: 400,
	CodeUnauthorized: 401, CodeForbidden: 403,
	CodeNotFound: 404, CodeServiceNotFound: 404, CodeInstanceNotFound: 404, CodeRegionNotFound: 404, CodeKeyNotFound: 404, CodePolicyNotFound: 404,
	CodeMethodNotAllowed: 405, CodeStaleIncarnation: 409, CodeConflict: 409,
	CodeBodyTooLarge: 413, CodeUnsupportedMedia: 415,
	CodeInvalidField: 422, CodeUnsupported: 422, CodeTooManyRequests: 429,
	CodeInternal: 500, CodeUnavailable: 503, CodeShuttingDown: 503,
	CodeRevisionNotReached: 504, CodeTimeout: 504, CodeStorageFull: 507,
}

// Codes returns the HTTP status of every code.
func Codes() map[Code]int {
	m := make(map[Code]int, len(statusOfCode))
	for c, s := range statusOfCode {
		m[c] = s
	}
	return m
}

// HTTPStatus returns the HTTP status of c; 500 for a code that is not in the list.
func (c Code) HTTPStatus() int {
	if s, ok := statusOfCode[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Retryable reports whether the same request may succeed later or at another node.
func (c Code) Retryable() bool {
	switch c {
	case CodeUnavailable, CodeShuttingDown, CodeTimeout, CodeTooManyRequests, CodeStorageFull,
		CodeInternal, CodeRevisionNotReached:
		return true
	}
	return false
}

// Error is what the registry says when it says no. It is an answer: failing to get one is
// some other error (a dial error, a closed connection), and only that is a reason to ask
// another region.
type Error struct {
	Code   Code
	Detail string // one sentence: the thing and the cause
	Remedy string // what to do about it; may be empty
	Field  string // the request's field, when one is to blame
	// Incarnation is the stored one when Code is CodeStaleIncarnation.
	Incarnation uint64
	// Revision is the key's present one (0 = there is no such key) when Code is CodeConflict
	// and a compare-and-set is refused; nil otherwise.
	Revision *uint64
	// RequestID identifies the request in the logs of the node that answered.
	RequestID string
}

// Error returns "detail: remedy (code)".
func (e *Error) Error() string {
	s := e.Detail
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s + " (" + string(e.Code) + ")"
}

// Is makes errors.Is(err, &Error{Code: c}) match on the code alone.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Detail == ""
}

// Errorf returns an *Error with a formatted detail.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// FieldError returns an *Error with CodeInvalidField.
func FieldError(field, detail, remedy string) *Error {
	return &Error{Code: CodeInvalidField, Field: field, Detail: detail, Remedy: remedy}
}

// CodeOf returns the code in err's chain, CodeInternal for any other error and "" for nil.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	}
	return CodeInternal
}

// Problem is the RFC 9457 problem document of an Error (application/problem+json).
type Problem struct {
	Type        string  `json:"type"`
	Title       string  `json:"title"`
	Status      int     `json:"status"`
	Detail      string  `json:"detail"`
	Code        Code    `json:"code"`
	RequestID   string  `json:"request_id"`
	Remedy      string  `json:"remedy,omitempty"`
	Field       string  `json:"field,omitempty"`
	Incarnation uint64  `json:"incarnation,omitempty"`
	Revision    *uint64 `json:"revision,omitempty"`
}

// ProblemType is the media type of a Problem.
const ProblemType = "application/problem+json"

// Problem returns the wire form of e.
func (e *Error) Problem(requestID string) Problem {
	status := e.Code.HTTPStatus()
	return Problem{
		Type: "urn:nearside:error:" + string(e.Code), Title: http.StatusText(status), Status: status,
		Detail: e.Detail, Code: e.Code, RequestID: requestID, Remedy: e.Remedy, Field: e.Field,
		Incarnation: e.Incarnation, Revision: e.Revision,
	}
}

// Err returns the Error that p describes.
func (p Problem) Err() *Error {
	return &Error{
		Code: p.Code, Detail: p.Detail, Remedy: p.Remedy, Field: p.Field,
		Incarnation: p.Incarnation, Revision: p.Revision, RequestID: p.RequestID,
	}
}

// Quote returns s as a quoted Go string, cut to 80 bytes: for values of strangers in
// messages, so that they can neither forge a line nor fill it.
func Quote(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
