// Package httpapi is the HTTP v1 door of a region node: it decodes a request, calls one
// use case of the [Registry], and encodes the answer. It decides nothing and stores
// nothing; what a request means is written in region/registry.
//
// What it promises to callers, whatever they send:
//
//   - Every failure is a problem document ([api.Problem], RFC 9457) with a code from the
//     closed list and the request id. A wrong request is never answered with a 5xx.
//   - What is not understood is refused and named: fields, query parameters, media types,
//     repeated parameters. Names are decoded once and then validated.
//   - Every 2xx answer under /v1 says whose data it is and how old: Nearside-Region,
//     -Epoch, -Revision, -Age-Ms, -Source and Nearside-Node.
//   - A web page cannot use a visitor's browser against the node: unknown Host names and
//     cross-origin writes are refused, and no answer carries CORS headers.
//   - No read of a body, no write of an answer and no call of the registry waits for ever
//     (with the timeouts of [Server]).
//
// [New] returns the handler and starts no goroutine. Mount it at the root and not below a
// http.ServeMux, which would redirect unclean paths before they can be refused.
//
// echo routes; it is used in routes.go alone.
package httpapi
