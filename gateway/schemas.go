package gateway

import (
	"context"
	"errors"

	"sluice/gateway/rest"
	"sluice/gateway/schema"
)

// schemas are what is known of the methods of backends.
type schemas struct {
	registry schemaRegistry
}

type schemaRegistry interface {
	Learn(ctx context.Context, backends []string) bool
	Method(ctx context.Context, backend, path string) (*schema.Method, error)
}

type noRegistry struct{}

func (noRegistry) Learn(context.Context, []string) bool { return false }
func (noRegistry) Method(context.Context, string, string) (*schema.Method, error) {
	return nil, errors.New("no schema")
}

func (s *schemas) table() *rest.Table { t, _ := rest.NewTable(nil); return t }

func (s *schemas) tableOf(string) *rest.Table { return s.table() }

func (s *schemas) knows(string) bool { return false }
