package httpapi

import (
	"context"
	_ "embed"
)

// openAPIDocument describes this door. Its test holds it and the routes together.
//
//go:embed openapi.yaml
var openAPIDocument []byte

// openAPI is GET /v1/openapi.yaml.
func (d *door) openAPI(context.Context, *request) (answer, error) {
	return answer{raw: &document{"application/yaml", openAPIDocument}, stamp: d.Registry.Stamp()}, nil
}
