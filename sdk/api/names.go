package api

import "fmt"

// Region names a failure and ownership domain. One DNS label.
type Region string

// Zone names a smaller failure domain inside a region. One DNS label; may be empty.
type Zone string

// Namespace separates services of the same name. One DNS label; empty means DefaultNamespace.
type Namespace string

// ServiceName is what callers ask for. One DNS label.
type ServiceName string

// InstanceID names one running copy of a service, unique within (namespace, service).
// 1 to 128 of A-Z a-z 0-9 . _ : -
type InstanceID string

// DefaultNamespace is used wherever no namespace is given.
const DefaultNamespace Namespace = "default"

// AllNamespaces stands for every namespace, where a watch allows it. It is no name.
const AllNamespaces Namespace = "*"

// ServiceKey identifies a service within a region.
type ServiceKey struct {
	Namespace Namespace
	Service   ServiceName
}

// String returns "service" in the default namespace and "namespace/service" elsewhere.
func (k ServiceKey) String() string {
	if k.Namespace == "" || k.Namespace == DefaultNamespace {
		return string(k.Service)
	}
	return string(k.Namespace) + "/" + string(k.Service)
}

// InstanceKey identifies an instance within a region.
type InstanceKey struct {
	Namespace Namespace
	Service   ServiceName
	ID        InstanceID
}

// ServiceKey returns the key of the service the instance belongs to.
func (k InstanceKey) ServiceKey() ServiceKey {
	return ServiceKey{Namespace: k.Namespace, Service: k.Service}
}

// String returns "service/id", with the namespace in front when it is not the default.
func (k InstanceKey) String() string { return k.ServiceKey().String() + "/" + string(k.ID) }

// ValidLabel reports whether s is one lower-case DNS label: [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?
func ValidLabel(s string) bool {
	if len(s) == 0 || len(s) > MaxLabelLength {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}

// ValidInstanceID reports whether s may be an InstanceID.
func ValidInstanceID(s string) bool {
	if len(s) == 0 || len(s) > MaxInstanceIDLength {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9',
			c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	// A name of dots only would be read as a path by proxies and file systems.
	return s != "." && s != ".."
}

const labelRule = "use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit"

func checkLabel(field, kind, s string) *Error {
	if ValidLabel(s) {
		return nil
	}
	return FieldError(field, fmt.Sprintf("%s %s is not a valid name", kind, Quote(s)), labelRule)
}

// CheckServiceName, and its siblings below, return nil or an *Error with CodeInvalidField
// that names the field, the value (cut short) and the rule.
func CheckServiceName(s string) error { return nilable(checkLabel("service", "service", s)) }

// CheckNamespace validates a namespace name.
func CheckNamespace(s string) error { return nilable(checkLabel("ns", "namespace", s)) }

// CheckRegion validates a region name.
func CheckRegion(s string) error { return nilable(checkLabel("region", "region", s)) }

// CheckZone validates a zone name; empty is allowed.
func CheckZone(s string) error {
	if s == "" {
		return nil
	}
	return nilable(checkLabel("zone", "zone", s))
}

// CheckInstanceID validates an instance id.
func CheckInstanceID(s string) error {
	if ValidInstanceID(s) {
		return nil
	}
	return FieldError("id", fmt.Sprintf("instance id %s is not valid", Quote(s)),
		"use 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-'")
}

// nilable keeps a nil *Error from turning into a non-nil error.
func nilable(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}
