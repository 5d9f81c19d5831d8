package admin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
	"sluice/store"
)

// AccessConfig is what decides who gets in.
type AccessConfig struct {
	// Records keep accounts, sessions, tokens and the audit log.
	Records Records

	// Hosts are the names, beside addresses and those of this machine, by which the
	// door may be called.
	Hosts []string

	// TLS says that the port speaks it: links begin with https.
	TLS bool

	// Addr is where the port listens, for links. Nil means that there is no port.
	Addr net.Addr

	// PasswordFile has the password of the account "admin"; empty means the systemd
	// credential of that purpose, and where there is none, no such account.
	PasswordFile string

	// Now is the time; nil means time.Now.
	Now func() time.Time

	// Log gets what an operator should know; nil means that nobody does.
	Log *slog.Logger

	cost passwordCost // of hashes; zero means standardCost
}

// Access knows who may do what, and keeps the book of what was done. Its methods are
// safe for use by several goroutines.
type Access struct {
	cfg         AccessConfig
	records     Records
	now         func() time.Time
	log         *slog.Logger
	hosts       hostNames
	crossOrigin *http.CrossOriginProtection
	errors      *connect.ErrorWriter
	passwords   *passwords
	throttle    *throttle
	streams     *streams
	audit       *auditLog
}

// NewAccess checks cfg, reads the password file and starts nothing.
func NewAccess(cfg AccessConfig) (*Access, error) {
	if cfg.Records == nil {
		return nil, errors.New("open access: there are no records to keep accounts in")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Access{
		cfg: cfg, records: cfg.Records, now: cfg.Now, log: cfg.Log,
		hosts:       newHostNames(cfg.Hosts),
		crossOrigin: http.NewCrossOriginProtection(),
		errors:      connect.NewErrorWriter(),
		passwords:   newPasswords(cmp.Or(cfg.cost, standardCost)),
		throttle:    newThrottle(cfg.Now),
		audit:       newAuditLog(cfg.Records, cfg.Now, cfg.Log),
	}
	a.streams = newStreams(a.stillValid)
	if err := a.applyPasswordFile(context.Background()); errors.Is(err, store.ErrFull) {
		// Traffic has no part in it, and the next start reads the file again.
		a.log.Error("password file not applied", "account", fileAccount, "error", err)
	} else if err != nil {
		return nil, err
	}
	return a, nil
}

// tidyEvery is how often what is over is deleted, and how long the audit log takes
// to tell of refusals that have no line.
const tidyEvery = time.Minute

// Run tidies up until ctx ends: sessions that are over, audit lines that are too
// old, refusals that were not told of.
func (a *Access) Run(ctx context.Context) error {
	ticker := time.NewTicker(tidyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			a.audit.tellOmitted()
			return nil
		case <-ticker.C:
			if err := a.tidy(); err != nil {
				a.log.Warn("access not tidied", "error", err)
			}
		}
	}
}

// Service answers sluice.admin.v1.AccessService at the returned path prefix.
func (a *Access) Service() (string, http.Handler) {
	return adminv1.NewAccessServiceHandler(&accessServer{Access: a},
		append(a.HandlerOptions(), recovered(a.log))...)
}

// tidy deletes what is over. It writes nothing when there is nothing.
func (a *Access) tidy() error {
	a.audit.tellOmitted()
	now := a.now()
	over := func(s *session) bool { return s.over(now) }
	any := false
	err := a.records.View(func(tx RecordsTx) error {
		return each(tx, sessionPrefix, func(_ string, s *session) error {
			any = any || over(s)
			return nil
		})
	})
	if err == nil && any {
		err = a.records.Update(func(tx RecordsTx) error { return endSessions(tx, over) })
	}
	return errors.Join(err, a.audit.forget())
}
