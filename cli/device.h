/* cli/device.h - show --device: how fast the device is that --kv-dir lies on. */
#ifndef PGD_CLI_DEVICE_H
#define PGD_CLI_DEVICE_H

#include "cli/exit.h"
#include "cli/options.h"

/* Measures, and prints a table or one JSON object. On failure the reason has been told. */
PGD_MUST_CHECK enum pgd_exit pgd_device_show(const struct pgd_options *options);

#endif
