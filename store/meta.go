package store

import (
	"fmt"
	"strings"
	"time"
)

// DefaultNamespace is where an object without a namespace belongs.
const DefaultNamespace = "default"

// Meta is what every object has.
type Meta struct {
	Namespace   string            `json:"namespace"`
	Name        string            `json:"name"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// CreationTimestamp decides between routes of equal precedence. Zero when the
	// text does not say: such a route is younger than any that does.
	CreationTimestamp time.Time `json:"creationTimestamp,omitzero"`
	// ResourceVersion is the revision that the text was read from, when it is one of
	// ours; those of other servers are left out.
	ResourceVersion string `json:"resourceVersion,omitempty"`
	// Origin is the line that declares the object.
	Origin Position `json:"-"`
}

// Key identifies the object among those of its kind: "namespace/name".
func (m *Meta) Key() string { return key(m.Namespace, m.Name) }

// Metadata is m itself, for whoever has only a Resource.
func (m *Meta) Metadata() *Meta { return m }

func key(namespace, name string) string {
	if namespace == "" {
		namespace = DefaultNamespace
	}
	return namespace + "/" + name
}

// Duration is a time.Duration that is written as the Gateway API writes it
// (GEP-2257): "1h30m", "5s", "1500ms".
type Duration time.Duration

// String is the shortest such text, "0s" for zero. What is finer than a
// millisecond cannot be written and is left out.
func (d Duration) String() string {
	rest := time.Duration(d).Truncate(time.Millisecond)
	if rest == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, unit := range []struct {
		size time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := rest / unit.size; n != 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			rest -= n * unit.size
		}
	}
	return b.String()
}

// MarshalText writes the duration for JSON.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Duration) UnmarshalText(text []byte) error {
	got, ok := parseDuration(string(text))
	if !ok {
		return fmt.Errorf("duration %s: want a form like 5s or 1m30s", quote(string(text)))
	}
	*d = Duration(got)
	return nil
}

// parseDuration reads one to four numbers of up to five digits, each with its
// unit (GEP-2257), a strict subset of what time.ParseDuration takes.
func parseDuration(s string) (time.Duration, bool) {
	groups, digits := 0, 0
	for i := 0; i < len(s); i++ {
		if '0' <= s[i] && s[i] <= '9' {
			digits++
			continue
		}
		if digits == 0 || digits > 5 {
			return 0, false
		}
		if strings.HasPrefix(s[i:], "ms") {
			i++
		} else if s[i] != 'h' && s[i] != 'm' && s[i] != 's' {
			return 0, false
		}
		groups, digits = groups+1, 0
	}
	if groups == 0 || groups > 4 || digits != 0 {
		return 0, false
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}
