package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
)

// DecodeStrict reads exactly one JSON value from body into v and refuses what two readers
// could take for two things: fields that v does not have to the letter (their case counts),
// keys given twice at any depth, and text that is not Unicode. It returns an *Error:
// CodeInvalidRequest, CodeUnknownField, CodeInvalidField (a value of the wrong type) or
// CodeBodyTooLarge (over MaxBodyBytes).
func DecodeStrict(body io.Reader, v any) error {
	b, err := ReadBody(body, MaxBodyBytes)
	if err != nil {
		return err
	}
	return UnmarshalStrict(b, v)
}

// ReadBody reads a request body of at most most bytes; it returns an *Error:
// CodeInvalidRequest or CodeBodyTooLarge.
func ReadBody(body io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, int64(most)+1))
	if err != nil {
		return nil, &Error{Code: CodeInvalidRequest, Detail: "the request body ended early", Remedy: "send it again"}
	}
	if len(b) > most {
		return nil, &Error{
			Code: CodeBodyTooLarge, Detail: fmt.Sprintf("the request body is over %d bytes", most),
			Remedy: "send less; GET /v1/limits lists the limits",
		}
	}
	return b, nil
}

// UnmarshalStrict is DecodeStrict for a body that was read.
func UnmarshalStrict(b []byte, v any) error {
	if err := checkUnicode(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return decodeError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return &Error{Code: CodeInvalidRequest, Detail: "the request body has more than one JSON value", Remedy: "send one object"}
	}
	return checkKeys(b, reflect.TypeOf(v))
}

func decodeError(err error) error {
	var typeErr *json.UnmarshalTypeError
	var syntaxErr *json.SyntaxError
	switch {
	case errors.As(err, &typeErr):
		field := withoutEmbedded(typeErr.Field)
		if field == "" {
			field = "body"
		}
		return FieldError(field, fmt.Sprintf("%s cannot be a JSON %s", field, typeErr.Value), "it must be "+kindName(typeErr.Type.Kind().String()))
	case errors.As(err, &syntaxErr):
		return &Error{Code: CodeInvalidRequest, Detail: fmt.Sprintf("the request body is not JSON (at byte %d)", syntaxErr.Offset), Remedy: "send a JSON object"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{Code: CodeInvalidRequest, Detail: "the request body is empty or cut off", Remedy: "send a JSON object"}
	}
	if f, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return unknownField(strings.Trim(f, `"`))
	}
	return &Error{Code: CodeInvalidField, Detail: err.Error(), Remedy: "correct the value"}
}

// withoutEmbedded takes the names of embedded structs out of a path: they are no part of the
// JSON, and begin with a capital, as no field of ours does.
func withoutEmbedded(path string) string {
	var out []string
	for part := range strings.SplitSeq(path, ".") {
		if part != "" && (part[0] < 'A' || part[0] > 'Z') {
			out = append(out, part)
		}
	}
	return strings.Join(out, ".")
}

func kindName(k string) string {
	switch k {
	case "struct", "map":
		return "an object"
	case "slice", "array":
		return "a list"
	case "string":
		return "a string"
	case "bool":
		return "true or false"
	case "ptr", "interface":
		return "another type"
	}
	if strings.HasPrefix(k, "uint") {
		return "a whole number of 0 or more"
	}
	if strings.HasPrefix(k, "int") {
		return "a whole number"
	}
	return "a number"
}
