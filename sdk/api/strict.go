package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"
)

func unknownField(f string) *Error {
	return &Error{Code: CodeUnknownField, Field: cutField(f), Detail: "there is no field " + Quote(f), Remedy: "check its spelling, or leave it out"}
}

// cutField keeps a stranger's text in Error.Field short.
func cutField(f string) string {
	const most = 80
	if len(f) > most {
		f = strings.ToValidUTF8(f[:most], "")
	}
	return f
}

// checkUnicode refuses bytes that are not UTF-8 and escapes of half a character: the JSON
// reader would put U+FFFD in their place, and two different names would become one.
func checkUnicode(b []byte) error {
	if !utf8.Valid(b) {
		return &Error{Code: CodeInvalidRequest, Detail: "the request body is not UTF-8", Remedy: "send JSON in UTF-8; encode binary values, as base64 for example"}
	}
	high := false // the last thing was the first half of a pair
	for i := 0; i < len(b); {
		n, first, second := 1, false, false
		if b[i] == '\\' {
			n = 2
			if i+6 <= len(b) && b[i+1] == 'u' {
				if u, err := strconv.ParseUint(string(b[i+2:i+6]), 16, 16); err == nil {
					n, first, second = 6, u >= 0xd800 && u < 0xdc00, u >= 0xdc00 && u < 0xe000
				}
			}
		}
		if high != second {
			return &Error{Code: CodeInvalidRequest, Detail: fmt.Sprintf("the request body has half a character (an unpaired surrogate escape) near byte %d", i), Remedy: `write both halves, or the character itself`}
		}
		high = first
		i += n
	}
	return nil
}

// checkKeys refuses keys that differ from t's fields in case only, and keys given twice. b
// was read into a value of type t before, so it is well-formed and not too deep.
func checkKeys(b []byte, t reflect.Type) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return checkValue(dec, t, "")
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// checkValue reads the next value. t is nil where any value is taken.
func checkValue(dec *json.Decoder, t reflect.Type, path string) error {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && (t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler)) {
		t = nil
	}
	tok, err := dec.Token()
	if err != nil {
		return decodeError(err)
	}
	switch tok {
	case json.Delim('{'):
		return checkObject(dec, t, path)
	case json.Delim('['):
		var elem reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			elem = t.Elem()
		}
		for i := 0; dec.More(); i++ {
			if err := checkValue(dec, elem, below(path, "["+strconv.Itoa(i)+"]")); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	}
	if err != nil {
		return decodeError(err)
	}
	return nil
}

// below extends a path, unless it is too long to be shown: a deep body must stay cheap.
func below(path, part string) string {
	if len(path) > 200 {
		return path
	}
	return path + part
}

func checkObject(dec *json.Decoder, t reflect.Type, path string) error {
	var fields map[string]reflect.Type
	var elem reflect.Type
	switch {
	case t == nil:
	case t.Kind() == reflect.Struct:
		fields = map[string]reflect.Type{}
		fieldsOf(t, fields)
	case t.Kind() == reflect.Map:
		elem = t.Elem()
	}
	seen := map[string]struct{}{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return decodeError(err)
		}
		key, _ := tok.(string)
		name := key
		if path != "" {
			name = below(path, "."+key)
		}
		if _, twice := seen[key]; twice {
			return &Error{Code: CodeInvalidRequest, Field: cutField(name), Detail: Quote(name) + " is given twice", Remedy: "give it once"}
		}
		seen[key] = struct{}{}
		value := elem
		if fields != nil {
			known := false
			if value, known = fields[key]; !known {
				return unknownField(name)
			}
		}
		if err := checkValue(dec, value, name); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return decodeError(err)
	}
	return nil
}

// fieldsOf adds the fields of a struct by the names they have in JSON.
func fieldsOf(t reflect.Type, to map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			fieldsOf(f.Type, to)
		case !f.IsExported():
		case name == "":
			to[f.Name] = f.Type
		default:
			to[name] = f.Type
		}
	}
}
