package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/nearside/nearside/sdk/api"
)

// decode reads the JSON body into v. It is refused when there is none.
func (r *request) decode(v any) error {
	if err := r.checkMedia(api.MaxBodyBytes); err != nil {
		return err
	}
	return api.DecodeStrict(r.Body, v)
}

// decodeOptional is decode for requests that may come without a body.
func (r *request) decodeOptional(v any) error {
	some, err := r.hasBody()
	if err != nil || !some {
		return err
	}
	return r.decode(v)
}

// refuseBody keeps routes without a body from ignoring what somebody meant to say.
func (r *request) refuseBody() error {
	some, err := r.hasBody()
	if err == nil && some {
		err = &api.Error{
			Code: api.CodeInvalidRequest, Detail: r.Method + " takes no body here",
			Remedy: "send what you mean as query parameters, or check the method",
		}
	}
	return err
}

// hasBody tells whether at least one byte of body comes. It keeps that byte readable.
func (r *request) hasBody() (bool, error) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return false, nil
	}
	if r.ContentLength > 0 {
		return true, nil
	}
	b := bufio.NewReader(r.Body)
	_, err := b.Peek(1)
	switch {
	case err == nil:
		r.Body = struct {
			io.Reader
			io.Closer
		}{b, r.Body}
		return true, nil
	case errors.Is(err, io.EOF):
		return false, nil
	}
	return false, &api.Error{Code: api.CodeInvalidRequest, Detail: "the request body ended early", Remedy: "send it again"}
}

// checkMedia refuses bodies that are known too large before they are read, packed bodies,
// and every media type but JSON. A missing type is taken for JSON. Form and text types are
// refused although curl -d sends one: they are what a foreign page can make a browser send
// without asking first.
func (r *request) checkMedia(most int64) error {
	if r.ContentLength > most {
		return &api.Error{
			Code:   api.CodeBodyTooLarge,
			Detail: fmt.Sprintf("the request body of %d bytes is over %d", r.ContentLength, most),
			Remedy: "send less; GET /v1/limits lists the limits",
		}
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return &api.Error{
			Code:   api.CodeUnsupportedMedia,
			Detail: "the content encoding " + api.Quote(enc) + " is not read here", Remedy: "send the body unpacked",
		}
	}
	ct := r.Header.Get("Content-Type")
	if ct == "" || ct == "application/json" {
		return nil
	}
	media, _, err := mime.ParseMediaType(ct)
	if err == nil && (media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return nil
	}
	return &api.Error{
		Code:   api.CodeUnsupportedMedia,
		Detail: "the content type " + api.Quote(ct) + " is not read here",
		Remedy: "send JSON and say so: -H 'Content-Type: application/json' (curl's --json does both)",
	}
}
