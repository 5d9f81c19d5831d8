package admin

import (
	"context"
	"log/slog"
	"net"
)

// api serves the services of the admin API.
type api struct{}

func newAPI(Config, Parts, net.Addr, *slog.Logger) (*api, error) { return &api{}, nil }

func (a *api) Run(ctx context.Context) error { <-ctx.Done(); return nil }
