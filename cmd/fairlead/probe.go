package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// probePause is how long probe waits before it asks again.
const probePause = 100 * time.Millisecond

func newProbe() *cobra.Command {
	timeout := 5 * time.Second
	cmd := &cobra.Command{
		Use:   "probe URL",
		Short: "Ask a URL until it answers with success",
		Long: `Ask a URL until it answers with a status from 200 to 299.

Exits with 0 as soon as it does, with 1 when it has not within the timeout, and with 2 when it cannot be asked. Redirects are not followed.`,
		Example: "  fairlead probe http://127.0.0.1:9000/readyz",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := url.Parse(args[0])
			if err != nil {
				return fmt.Errorf("probe: %w", err)
			}
			if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
				return fmt.Errorf("probe: %q is not like http://host/path", args[0])
			}
			if timeout <= 0 {
				return fmt.Errorf("--timeout: %s is not a time to wait, such as 5s", timeout)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			answer, err := probe(ctx, u.String())
			if err != nil {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s did not answer with success within %s: %v\n", u.Redacted(), timeout, err)
				return exitError(1)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", u.Redacted(), answer)
			return err
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", timeout, "give up after this `DURATION`")
	return cmd
}

// probe asks until there is a successful answer, which it returns the status line of, or ctx ends. The error is what the last attempt that could finish met.
func probe(ctx context.Context, address string) (string, error) {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // a new connection, and so perhaps another replica, each time; no proxy of the environment
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var last error
	for {
		answer, err := probeOnce(ctx, client, address)
		if err == nil {
			return answer, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return "", last
		case <-time.After(probePause):
		}
	}
}

func probeOnce(ctx context.Context, client *http.Client, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		if urlErr, ok := errors.AsType[*url.Error](err); ok {
			err = urlErr.Err // it would repeat the URL
		}
		return "", err
	}
	if err := resp.Body.Close(); err != nil {
		return "", err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return "", errors.New(resp.Status)
	}
	return resp.Status, nil
}
