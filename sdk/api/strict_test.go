package api

import (
	"errors"
	"strings"
	"testing"
)

// P8: a body that two readers could take for two things is refused, and the place is named.
func TestBodiesAreReadToTheLetter(t *testing.T) {
	type embedded struct {
		Inner int `json:"inner"`
	}
	type body struct {
		Registration
		embedded
		List []Check `json:"list"`
		Any  any     `json:"any"`
		Skip string  `json:"-"`
		Bare int
		Deep map[string]any `json:"deep"`
	}
	tests := map[string]struct {
		body  string
		code  Code // "" = taken
		field string
	}{
		"plain":                  {`{"address":"a","port":1,"metadata":{"A":"1","a":"2"},"inner":1,"Bare":2}`, "", ""},
		"durations":              {`{"ttl":"5s","checks":[{"kind":"ttl","ttl":5}]}`, "", ""},
		"null":                   {`null`, "", ""},
		"same key in two places": {`{"list":[{"kind":"a"},{"kind":"b"}],"any":{"kind":1}}`, "", ""},
		"pair of surrogates":     {`{"version":"\ud83d\ude00"}`, "", ""},
		"escaped backslash":      {`{"version":"\\ud800"}`, "", ""},
		"case":                   {`{"Address":"a"}`, CodeUnknownField, "Address"},
		"case below":             {`{"checks":[{"kind":"ttl"},{"Kind":"ttl"}]}`, CodeUnknownField, "checks[1].Kind"},
		"case of an embedded":    {`{"Inner":1}`, CodeUnknownField, "Inner"},
		"case of a bare":         {`{"bare":1}`, CodeUnknownField, "bare"},
		"unknown":                {`{"adress":"a"}`, CodeUnknownField, "adress"},
		"twice":                  {`{"port":1,"address":"a","port":2}`, CodeInvalidRequest, "port"},
		"twice by escape":        {`{"port":1,"p\u006frt":2}`, CodeInvalidRequest, "port"},
		"twice in metadata":      {`{"metadata":{"a":"1","a":"1"}}`, CodeInvalidRequest, "metadata.a"},
		"twice in a list":        {`{"checks":[{"kind":"ttl","kind":"ttl"}]}`, CodeInvalidRequest, "checks[0].kind"},
		"twice in anything":      {`{"deep":{"x":[{"y":1,"y":1}]}}`, CodeInvalidRequest, "deep.x[0].y"},
		"not UTF-8":              {"{\"version\":\"\xff\"}", CodeInvalidRequest, ""},
		"not UTF-8 in a key":     {"{\"metadata\":{\"\xff\":\"\"}}", CodeInvalidRequest, ""},
		"first half":             {`{"version":"\ud800"}`, CodeInvalidRequest, ""},
		"first half and text":    {`{"version":"\ud800x"}`, CodeInvalidRequest, ""},
		"second half":            {`{"version":"\udc00"}`, CodeInvalidRequest, ""},
		"two first halves":       {`{"version":"\ud800\ud800"}`, CodeInvalidRequest, ""},
	}
	for name, tt := range tests {
		err := DecodeStrict(strings.NewReader(tt.body), &body{})
		if CodeOf(err) != tt.code {
			t.Errorf("%s: %v, want %q", name, err, tt.code)
			continue
		}
		var e *Error
		if errors.As(err, &e) && (e.Field != tt.field || e.Remedy == "") {
			t.Errorf("%s: %+v, want field %q", name, e, tt.field)
		}
	}
	deep := `{"any":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`
	if err := DecodeStrict(strings.NewReader(deep), &body{}); err != nil {
		t.Errorf("deep: %v", err)
	}
}
