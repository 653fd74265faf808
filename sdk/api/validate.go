package api

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// Normalize checks a registration and fills in defaults. It returns an *Error with
// CodeInvalidField for the first field that is wrong. r itself is not changed.
func (r Registration) Normalize() (Registration, error) {
	if err := checkAddress(r.Address); err != nil {
		return r, err
	}
	if r.Port < 1 || r.Port > 65535 {
		return r, FieldError("port", fmt.Sprintf("port %d is out of range", r.Port), "use 1 to 65535")
	}
	if len(r.Ports) > MaxPorts {
		return r, FieldError("ports", fmt.Sprintf("%d named ports", len(r.Ports)), fmt.Sprintf("use at most %d", MaxPorts))
	}
	for name, p := range r.Ports {
		if !ValidLabel(name) {
			return r, FieldError("ports", fmt.Sprintf("port name %s is not a valid name", Quote(name)), labelRule)
		}
		if p < 1 || p > 65535 {
			return r, FieldError("ports."+name, fmt.Sprintf("port %d is out of range", p), "use 1 to 65535")
		}
	}
	if err := CheckZone(string(r.Zone)); err != nil {
		return r, err
	}
	if r.Weight == nil {
		w := DefaultWeight
		r.Weight = &w
	}
	if *r.Weight < 0 || *r.Weight > MaxWeight {
		return r, FieldError("weight", fmt.Sprintf("weight %d is out of range", *r.Weight), fmt.Sprintf("use 0 to %d", MaxWeight))
	}
	if r.Capacity < 0 || r.Capacity > MaxCapacity {
		return r, FieldError("capacity", fmt.Sprintf("capacity %d is out of range", r.Capacity), fmt.Sprintf("use 0 to %d requests per second", MaxCapacity))
	}
	if err := checkText("version", r.Version, MaxVersionLength); err != nil {
		return r, err
	}
	if err := checkTagsAndMetadata(r); err != nil {
		return r, err
	}
	checks, err := normalizeChecks(&r)
	if err != nil {
		return r, err
	}
	r.Checks = checks
	if r.TTL == 0 && !r.Checked() {
		r.TTL = Duration(DefaultTTL)
	}
	if d := time.Duration(r.TTL); d != 0 && d < MinTTL || d > MaxTTL {
		return r, FieldError("ttl", fmt.Sprintf("ttl %s is out of range", d), fmt.Sprintf("use %s to %s", MinTTL, MaxTTL))
	}
	if err := checkIncarnation(r.Incarnation); err != nil {
		return r, err
	}
	switch r.Status {
	case "":
		r.Status = StatusPassing
	case StatusPassing, StatusStarting:
	default:
		return r, FieldError("status", fmt.Sprintf("an instance cannot register as %s", Quote(string(r.Status))),
			`use "passing" or "starting", and PUT …/status later`)
	}
	return r, nil
}

// Validate checks a status change.
func (s StatusChange) Validate() error {
	if !s.Status.Valid() {
		return FieldError("status", fmt.Sprintf("status %s is not known", Quote(string(s.Status))),
			"use starting, passing, warning, critical or draining")
	}
	if err := checkIncarnation(s.Incarnation); err != nil {
		return err
	}
	return checkText("note", s.Note, MaxNoteLength)
}

func checkIncarnation(n uint64) error {
	if n > MaxIncarnation {
		return FieldError("incarnation", fmt.Sprintf("incarnation %d is out of range", n), fmt.Sprintf("use 1 to %d, such as the start time in nanoseconds", uint64(MaxIncarnation)))
	}
	return nil
}

func checkTagsAndMetadata(r Registration) error {
	if len(r.Tags) > MaxTags {
		return FieldError("tags", fmt.Sprintf("%d tags", len(r.Tags)), fmt.Sprintf("use at most %d", MaxTags))
	}
	for i, t := range r.Tags {
		if t == "" {
			return FieldError(fmt.Sprintf("tags[%d]", i), "a tag is empty", "leave it out")
		}
		if err := checkText(fmt.Sprintf("tags[%d]", i), t, MaxTagLength); err != nil {
			return err
		}
	}
	if len(r.Metadata) > MaxMetadataKeys {
		return FieldError("metadata", fmt.Sprintf("metadata has %d keys", len(r.Metadata)), fmt.Sprintf("use at most %d", MaxMetadataKeys))
	}
	size := 0
	for k, v := range r.Metadata {
		if k == "" {
			return FieldError("metadata", "a metadata key is empty", "give it a name")
		}
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return FieldError("metadata", fmt.Sprintf("metadata key %s is not valid UTF-8", Quote(k)), "encode binary values, as base64 for example")
		}
		size += len(k) + len(v)
	}
	if size > MaxMetadataBytes {
		return FieldError("metadata", fmt.Sprintf("metadata is %d bytes", size),
			fmt.Sprintf("keep keys and values together within %d bytes", MaxMetadataBytes))
	}
	return nil
}

// checkText refuses long text and control characters, which would forge log lines.
func checkText(field, s string, max int) error {
	if len(s) > max {
		return FieldError(field, fmt.Sprintf("%s is %d bytes long", field, len(s)), fmt.Sprintf("use at most %d", max))
	}
	if !utf8.ValidString(s) {
		return FieldError(field, field+" is not valid UTF-8", "send UTF-8 text")
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == 0x2028 || r == 0x2029 }) {
		return FieldError(field, field+" has a control character", "remove it")
	}
	return nil
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// checkAddress accepts an IP literal (no zone; not unspecified, multicast or broadcast) or a host name.
func checkAddress(s string) error {
	const rule = "use an IP address or a host name, without a port or scheme"
	if s == "" {
		return FieldError("address", "address is missing", rule)
	}
	if a, err := netip.ParseAddr(s); err == nil {
		zone := a.Zone()
		a = a.Unmap() // ::ffff:0.0.0.0 is 0.0.0.0 to whoever dials it
		if a.IsUnspecified() || a.IsMulticast() || a == broadcast || zone != "" {
			return FieldError("address", fmt.Sprintf("nobody can call address %s", Quote(s)), "use the address that callers reach the instance at")
		}
		return nil
	}
	if len(s) > MaxAddressLength {
		return FieldError("address", fmt.Sprintf("address is %d bytes long", len(s)), rule)
	}
	digitsOnly := true
	for _, label := range strings.Split(strings.TrimSuffix(s, "."), ".") {
		if !validHostLabel(label) {
			return FieldError("address", fmt.Sprintf("address %s is not valid", Quote(s)), rule)
		}
		if strings.Trim(label, "0123456789") != "" {
			digitsOnly = false
		}
	}
	if digitsOnly {
		// "127.1" and "2130706433" are read as IP addresses by some programs and not by others.
		return FieldError("address", fmt.Sprintf("address %s is not a complete IP address", Quote(s)), rule)
	}
	return nil
}

// validHostLabel allows what ValidLabel does, and upper case and inner underscores
// (container names have them).
func validHostLabel(s string) bool {
	if len(s) == 0 || len(s) > MaxLabelLength || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
