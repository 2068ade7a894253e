// Package suite names the module whose tests are run, so that go.mod and go.sum pin it.
package suite

import _ "github.com/twmb/franz-go/pkg/kgo"
