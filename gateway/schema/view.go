package schema

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// View is what is known at one moment. It does not change, and reading it takes no lock.
type View struct {
	backends map[string]described
	every    []*Schema // of the objects that name no backend
	sources  []Source

	once    sync.Once
	methods []*Method // collected when first asked for
}

// described is what describes a backend.
type described struct {
	schemas []*Schema // best first, with those for every backend
	// final is why a method is not known that the schemas do not have, when asking the
	// backend would not help.
	final error
	// Else err is of the last time that it was asked, and retry from when on it may be
	// asked again.
	err   error
	retry time.Time
}

// open tells whether asking the backend could help.
func (d described) open(now time.Time) bool { return d.final == nil && !now.Before(d.retry) }

// Where a schema came from.
const (
	KindReflection = "reflection"
	KindObject     = "object"
)

// Source is where a schema came from, or did not.
type Source struct {
	Backend string // key, "" of an object for every backend
	Object  string // key of the Schema object, "" of reflection
	Kind    string // KindReflection or KindObject
	Version string // of reflection: "v1" or "v1alpha"
	Methods int
	Learnt  time.Time // when reflection answered last; zero when it never did
	Err     string    // why there is nothing, or nothing newer; or what was left out
}

// Methods are all methods by path, those of every schema: a path stands there twice when
// two backends describe it in different schemas. The list is not to be changed.
func (v *View) Methods() []*Method {
	v.once.Do(v.collect)
	return v.methods
}

// Sources are where the schemas came from, by backend and object. The list is not to be
// changed.
func (v *View) Sources() []Source { return v.sources }

// Schemas are what describes a backend, best first: the Schema objects that name it, or
// else its reflection; then the objects that name no backend. The list is not to be
// changed.
func (v *View) Schemas(backend string) []*Schema {
	if d, ok := v.backends[backend]; ok {
		return d.schemas
	}
	return v.every
}

// Backend is the best schema of a backend, nil when there is none.
func (v *View) Backend(key string) *Schema {
	if list := v.Schemas(key); len(list) > 0 {
		return list[0]
	}
	return nil
}

// Method is a method as a backend has it, by all that is known now; nil when nothing
// tells of it.
func (v *View) Method(backend, path string) *Method {
	for _, s := range v.Schemas(backend) {
		if m := s.Method(path); m != nil {
			return m
		}
	}
	return nil
}

// lookup finds a method by what is known at that time. When it has neither the method
// nor an error, the backend is to be asked; with the zero time it is not.
func (v *View) lookup(now time.Time, backend, path string) (*Method, error) {
	d, known := v.backends[backend]
	if !known {
		d = described{schemas: v.every, final: ErrNoSchema}
	}
	if d.open(now) && !now.IsZero() {
		return nil, nil
	}
	for _, s := range d.schemas {
		if m := s.Method(path); m != nil {
			return m, nil
		}
	}
	return nil, describing(backend, path, d.reason())
}

// reason is why a method is not known.
func (d described) reason() error {
	switch {
	case d.final != nil:
		return d.final
	case errors.Is(d.err, ErrUnimplemented):
		return fmt.Errorf("%w: it has no reflection: make a Schema object that names it (sluice schema push)", ErrNoSchema)
	case d.err != nil:
		return fmt.Errorf("%w: asking its reflection: %w", ErrUnanswered, d.err)
	}
	return ErrNoSchema
}

func describing(backend, path string, err error) error {
	return fmt.Errorf("describing method %q of backend %q: %w", path, backend, err)
}

// collect lists the methods of all schemas, each schema's once.
func (v *View) collect() {
	seen := make(map[*Schema]bool)
	add := func(schemas []*Schema) {
		for _, s := range schemas {
			if !seen[s] {
				seen[s] = true
				v.methods = append(v.methods, s.Methods()...)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(v.backends)) {
		add(v.backends[key].schemas)
	}
	add(v.every)
	slices.SortStableFunc(v.methods, func(a, b *Method) int { return cmp.Compare(a.Path, b.Path) })
}

// sameSchemas tells whether another view has the same schemas for each backend.
func (v *View) sameSchemas(other *View) bool {
	if !slices.Equal(v.every, other.every) {
		return false
	}
	for key, d := range v.backends {
		if !slices.Equal(d.schemas, other.Schemas(key)) {
			return false
		}
	}
	for key, d := range other.backends {
		if !slices.Equal(d.schemas, v.Schemas(key)) {
			return false
		}
	}
	return true
}
